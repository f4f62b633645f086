"""What config.json says is read once, and what cannot run is refused before any rank starts."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from actors.model.family import (
    ALIASES,
    FAMILIES,
    check_model,
    read_config,
    read_model_digest,
    read_model_facts,
)
from conf.errors import UserError
from tests import tiny


def _config(name, **changes):
    config = json.loads((tiny.model_path(name) / "config.json").read_text())
    config.update(changes)
    return {k: v for k, v in config.items() if v is not ...}


def _folder(tmp_path, config, *, weights=True):
    (tmp_path / "config.json").write_text(json.dumps(config))
    if weights:
        (tmp_path / "model.safetensors").write_bytes(b"")
    return str(tmp_path)


@pytest.mark.parametrize("name", tiny.FAMILIES)
def test_facts_of_every_family(name):
    facts = read_model_facts(str(tiny.model_path(name)))
    config = tiny.configs()[name]
    assert facts.model_type == config.model_type
    assert facts.model_type in FAMILIES
    assert (facts.num_layers, facts.vocab_size, facts.num_heads) == (3, 161, 8)
    assert facts.hidden_size == config.hidden_size
    assert facts.is_mla == (name in tiny.LATENT)
    assert facts.num_kv_heads == (1 if facts.is_mla else config.num_key_value_heads)
    assert facts.num_experts == (6 if name in tiny.ROUTED else 0)
    assert facts.moe_intermediate_size == (40 if name in tiny.ROUTED else None)
    assert (facts.max_position, facts.eos_ids, facts.intermediate_size) == (512, (2,), 144)


def test_reading_facts_imports_neither_torch_nor_transformers():
    code = (
        "import sys; from actors.model.family import check_model; "
        "print(sorted({'torch', 'transformers', 'safetensors'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "changes", [{"num_attention_heads": "eight"}, {"hidden_size": None}, {"vocab_size": [1]}]
)
def test_a_number_that_is_none_is_refused_with_its_folder(tmp_path, changes):
    folder = _folder(tmp_path, _config("llama", **changes))
    with pytest.raises(UserError, match=r"numbers cannot be read \(.*\); give the model's own"):
        read_model_facts(folder)


def test_a_generation_config_that_is_not_json_is_refused(tmp_path):
    folder = _folder(tmp_path, _config("llama"))
    (tmp_path / "generation_config.json").write_text("{")
    with pytest.raises(UserError, match=r"generation_config.json whose numbers cannot be read"):
        read_model_facts(folder)


@pytest.mark.parametrize("name", ["kimi_k2", "deepseek_v32"])
def test_aliases_are_read_as_deepseek_v3(name, tmp_path):
    assert set(ALIASES.items()) == {("kimi_k2", "deepseek_v3"), ("deepseek_v32", "deepseek_v3")}
    facts = read_model_facts(_folder(tmp_path, _config("deepseek_v3", model_type=name)))
    assert (facts.model_type, facts.is_mla) == ("deepseek_v3", True)


@pytest.mark.parametrize(
    ("eos", "generation", "expected"),
    [
        (2, None, (2,)),
        ([2, 5], None, (2, 5)),
        (None, None, ()),
        (2, {"eos_token_id": [7, 8]}, (7, 8)),
        (2, {"eos_token_id": 9}, (9,)),
        (2, {}, (2,)),
    ],
)
def test_generation_config_decides_the_end_of_sequence_ids(tmp_path, eos, generation, expected):
    folder = _folder(tmp_path, _config("llama", eos_token_id=eos))
    if generation is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps(generation))
    assert read_model_facts(folder).eos_ids == expected


def test_heads_without_groups_are_all_key_value_heads(tmp_path):
    config = _config("llama", num_key_value_heads=None)
    assert read_model_facts(_folder(tmp_path, config)).num_kv_heads == 8


def _refused(spec_or_call, *said):
    with pytest.raises(UserError) as error:
        spec_or_call()
    message = str(error.value)
    assert "\n" not in message
    for part in said:
        assert part in message, message
    return message


def test_unreadable_folders_are_named_with_the_way_out(tmp_path):
    missing = str(tmp_path / "no")
    _refused(lambda: read_config(missing), repr(missing), "is not a folder; give one")
    _refused(lambda: read_config(str(tmp_path)), "has no readable config.json", "save_pretrained")
    (tmp_path / "config.json").write_text("{\n,")
    _refused(lambda: read_config(str(tmp_path)), "not JSON (line 2)", "download it again")
    (tmp_path / "config.json").write_text("[]")
    _refused(lambda: read_config(str(tmp_path)), "is not an object")


def test_unknown_families_and_missing_fields_are_named(tmp_path):
    folder = _folder(tmp_path, _config("llama", model_type="gpt2"))
    _refused(lambda: read_model_facts(folder), "'gpt2'", "use one of deepseek_v3", "kimi_k2")
    folder = _folder(tmp_path, _config("llama", num_hidden_layers=...))
    _refused(lambda: read_model_facts(folder), "without 'num_hidden_layers'")


@pytest.mark.parametrize(
    ("name", "changes", "size", "why"),
    [
        ("llama", {}, 3, "it has 8 attention heads; use one of 1, 2, 4, 8"),
        ("llama", {}, 16, "it has 8 attention heads"),
        ("llama", {}, 0, "a group has at least one rank"),
        ("qwen3", {"num_key_value_heads": 3}, 2, "it has 3 key-value heads"),
        ("llama", {"intermediate_size": 145}, 2, "its feed-forward width is 145"),
        (
            "qwen3_moe",
            {"moe_intermediate_size": 42},
            4,
            "its experts' width is 42; use one of 1, 2",
        ),
    ],
)
def test_a_size_that_does_not_divide_is_refused_with_those_that_do(
    tmp_path, name, changes, size, why
):
    folder = _folder(tmp_path, _config(name, **changes))
    spec = tiny.spec(folder, tensor_parallel_size=size)
    _refused(lambda: check_model(spec), f"cluster.tensor_parallel_size={size}", why)


@pytest.mark.parametrize("name", tiny.FAMILIES)
@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_sizes_that_divide_are_let_in(name, size):
    spec = tiny.spec(tiny.model_path(name), tensor_parallel_size=size)
    assert check_model(spec).fitting_sizes() == [1, 2, 4, 8]


def test_weights_that_cannot_be_read_are_refused_but_random_ones_need_none(tmp_path):
    folder = _folder(tmp_path, _config("llama"), weights=False)
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    _refused(lambda: check_model(tiny.spec(folder)), "no *.safetensors", "model.weights=random")
    assert check_model(tiny.spec(folder, weights="random")).num_layers == 3
    quantized = _config("llama", quantization_config={"quant_method": "fp8"})
    folder = _folder(tmp_path, quantized)
    _refused(lambda: check_model(tiny.spec(folder)), "quantized as fp8 without weight_block_size")
    assert check_model(tiny.spec(folder, weights="random")).num_layers == 3


@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
def test_rotary_scaling_that_depends_on_the_batch_is_refused(tmp_path, key):
    config = {k: v for k, v in _config("llama").items() if k != "rope_parameters"}
    for kind in ("dynamic", "longrope"):
        folder = _folder(tmp_path, {**config, key: {"rope_type": kind, "factor": 2.0}})
        _refused(lambda: check_model(tiny.spec(folder)), f"rope_type {kind!r}")  # noqa: B023
    for kind in ("default", "linear", "yarn", "llama3"):
        folder = _folder(tmp_path, {**config, key: {"rope_type": kind}})
        assert check_model(tiny.spec(folder)).num_layers == 3


@pytest.mark.parametrize("weights", ["checkpoint", "random"])
def test_another_activation_than_the_family_was_published_with_is_refused(tmp_path, weights):
    folder = _folder(tmp_path, _config("qwen3_moe", hidden_act="gelu"))
    spec = tiny.spec(folder, weights=weights)
    _refused(lambda: check_model(spec), "hidden_act='gelu'", "compute 'silu' only")
    folder = _folder(tmp_path, {k: v for k, v in _config("llama").items() if k != "hidden_act"})
    assert check_model(tiny.spec(folder)).num_layers == 3


def test_a_digest_changes_with_config_weights_and_seed_and_with_nothing_else(tmp_path):
    folder = _folder(tmp_path, _config("llama"))
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"abc")
    first = read_model_digest(tiny.spec(folder))
    assert re.fullmatch("[0-9a-f]{64}", first)
    assert read_model_digest(tiny.spec(folder, page_size=8)) == first
    weights.write_bytes(b"abd")
    second = read_model_digest(tiny.spec(folder))
    (tmp_path / "config.json").write_text(json.dumps(_config("llama", rms_norm_eps=1e-3)))
    third = read_model_digest(tiny.spec(folder))
    seeds = [read_model_digest(tiny.spec(folder, weights="random", random_seed=s)) for s in (0, 1)]
    assert len({first, second, third, *seeds}) == 5


def test_a_large_file_is_named_by_blocks_over_all_of_it(tmp_path):
    folder = _folder(tmp_path, _config("llama"))
    weights = tmp_path / "model.safetensors"
    size = (64 << 20) + 4096
    with weights.open("wb") as file:
        file.truncate(size)  # sparse
    first = read_model_digest(tiny.spec(folder))
    for offset in (10, 31 * (size - 65536) // 63, size - 1):
        with weights.open("r+b") as file:
            file.seek(offset)
            file.write(b"\x01")
        changed = read_model_digest(tiny.spec(folder))
        assert changed != first
        first = changed


def test_the_engine_states_the_digest_that_the_driver_computed():
    path = tiny.model_path("qwen3_moe")
    assert tiny.engine(path).info.model_digest == read_model_digest(tiny.spec(path))
