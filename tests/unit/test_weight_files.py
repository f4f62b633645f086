"""Damaged, missing and mismatched weight files are named before any rank starts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from actors.model.family import read_model_facts
from conf.errors import UserError
from jobs.weight_files import INDEX, check_weight_files

SHIPPED = Path(__file__).parents[2] / "jobs/toy/models"
WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(tmp_path):
    """A copy of a shipped model that a test may damage."""
    return Path(shutil.copytree(SHIPPED / "toy_gqa", tmp_path / "toy"))


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        check_weight_files(str(folder), read_model_facts(str(folder)))
    sentence = str(caught.value)
    assert sentence.startswith(f"model.path={str(folder)!r} ")
    assert "\n" not in sentence
    return sentence


def change_config(folder: Path, **changes: int) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("name", ["toy_mla", "toy_gqa"])
def test_a_shipped_model_is_whole(name):
    check_weight_files(str(SHIPPED / name), read_model_facts(str(SHIPPED / name)))


def test_a_file_that_was_cut_says_how_much_is_there(folder):
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[:-1000])

    got = refusal(folder)

    assert f"{len(whole) - 1000} of {len(whole)} bytes are there" in got
    assert got.endswith("copy it again.")


def test_a_file_with_bytes_behind_its_end_is_damaged_too(folder):
    with (folder / WEIGHTS).open("ab") as file:
        file.write(b"more")
    assert "a damaged model.safetensors" in refusal(folder)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "0 bytes are no safetensors file"),
        (b"\x08", "1 bytes are no safetensors file"),
        (b"garbage" * 100, "700 bytes are no safetensors file"),
        (b"\x04\x00\x00\x00\x00\x00\x00\x00{no}", "its header cannot be read"),
        (b"\x02\x00\x00\x00\x00\x00\x00\x00[]", "its header cannot be read"),
        (b'\x08\x00\x00\x00\x00\x00\x00\x00{"a": 1}', "its header cannot be read"),
        (b"\x04\x00\x00\x00\x00\x00\x00\x00\xff\xfe\xfd\xfc", "its header cannot be read"),
    ],
)
def test_what_is_no_safetensors_file_is_said_to_be_none(folder, content, why):
    (folder / WEIGHTS).write_bytes(content)
    assert f"a damaged model.safetensors ({why})" in refusal(folder)


def test_a_folder_of_that_name_is_no_file(folder):
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).mkdir()
    assert "a damaged model.safetensors (" in refusal(folder)


def test_a_shard_that_the_index_names_must_be_there(folder):
    (folder / WEIGHTS).rename(folder / "model-00001-of-00002.safetensors")
    named = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / INDEX).write_text(json.dumps({"weight_map": named}))

    assert "lacks model-00002-of-00002.safetensors, which" in refusal(folder)


@pytest.mark.parametrize("content", ["{", "{}", "[]", '{"weight_map": []}'])
def test_an_index_that_cannot_be_read_is_named(folder, content):
    (folder / INDEX).write_text(content)
    assert f"has an {INDEX} that cannot be read; download it again." in refusal(folder)


def test_only_files_that_the_index_names_are_read(folder):
    named = dict.fromkeys(["a"], WEIGHTS)
    (folder / INDEX).write_text(json.dumps({"weight_map": named}))
    (folder / "consolidated.safetensors").write_bytes(b"another layout, cut")
    check_weight_files(str(folder), read_model_facts(str(folder)))


def test_a_config_of_a_wider_model_is_refused(folder):
    change_config(folder, hidden_size=4096)
    got = refusal(folder)
    assert "model.embed_tokens.weight of shape [" in got
    assert "and 4096 for vocab_size and hidden_size" in got


def test_a_config_of_a_deeper_model_is_refused(folder):
    have = read_model_facts(str(folder)).num_layers
    change_config(folder, num_hidden_layers=have + 50)
    assert f"holds {have} layers, but its config.json says {have + 50} for" in refusal(folder)


def test_layers_beyond_the_models_own_are_no_fault(folder):
    """DeepSeek-V3's files hold one more layer, which predicts further tokens."""
    have = read_model_facts(str(folder)).num_layers
    change_config(folder, num_hidden_layers=have - 1)
    check_weight_files(str(folder), read_model_facts(str(folder)))
