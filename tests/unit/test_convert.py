"""Layouts of other tools: written as they document, read back by themselves and by us."""

from __future__ import annotations

import contextlib
import json
import pickle

import numpy as np
import polars
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from conf.errors import UserError
from jobs import convert
from jobs.report.console import Console
from storage import schema, vectors
from storage.errors import UnsafeNameError
from storage.manifest import Run
from tests.faults.worker import write_task
from tests.unit.test_exports import vector
from tests.unit.test_vectors import direction, row, score


@pytest.fixture
def run_folder(tmp_path):
    with Run.open(tmp_path / "run") as run:
        table = vectors.to_table([row(layer) for layer in (1, 2, 3)])
        run.commit("t1", {"vectors": table}, model="toy", provenance={})
        write_task(run, "t2", 0)
    return tmp_path / "run"


def convert_(*arguments) -> int:
    return convert.main([str(each) for each in arguments])


def test_persona_vectors_row_is_the_layer_plus_one(run_folder, tmp_path):
    out = tmp_path / "anxiety_response_avg_diff.pt"
    options = ("--format", "persona_vectors", "--num-layers", 6, "--scale", 1)
    assert convert_("export", run_folder, out, *options) == 0
    rows = torch.load(out, weights_only=True)  # as the tool loads it: a tensor, indexed by layer
    assert rows.shape == (7, 64)
    assert rows[3].numpy().tobytes() == direction(2).tobytes()
    assert not rows[0].any()
    back = convert.read_persona_vectors(out)
    assert {layer: r.tobytes() for layer, r in back.items()} == {
        layer: direction(layer).tobytes() for layer in (1, 2, 3)
    }


def test_persona_vectors_needs_enough_rows(run_folder, tmp_path):
    options = ("--format", "persona_vectors", "--num-layers", 3)
    assert convert_("export", run_folder, tmp_path / "v.pt", *options) == 2


def test_trait_interp_has_a_file_a_layer_and_metadata(run_folder, tmp_path):
    assert convert_("export", run_folder, tmp_path / "v", "--format", "trait_interp") == 0
    place = tmp_path / "v/response__5/residual/mean_diff"
    assert sorted(p.name for p in place.iterdir()) == [
        "layer1.pt",
        "layer2.pt",
        "layer3.pt",
        "metadata.json",
    ]
    tensor = torch.load(place / "layer2.pt", weights_only=True)
    assert tensor.numpy().tobytes() == direction(2).tobytes()
    facts = json.loads((place / "metadata.json").read_text())
    assert facts["layers"]["2"]["norm"] == 4.0
    assert sorted(convert.read_trait_interp(place)) == [1, 2, 3]


@pytest.mark.parametrize(
    ("tokens", "folder"),
    [
        ("response[:]", "response_all"),
        ("response[:5]", "response__5"),
        ("prompt[-1]", "prompt_-1"),
        ("response[-5:]", "response_-5_"),
    ],
)
def test_a_position_has_the_folder_that_trait_interp_looks_in(tmp_path, tokens, folder):
    with Run.open(tmp_path / "run") as run:
        table = vectors.to_table([row(1, tokens=tokens)])
        run.commit("t1", {"vectors": table}, model="toy", provenance={})
    options = ("--format", "trait_interp", "--tokens", tokens)
    assert convert_("export", tmp_path / "run", tmp_path / "v", *options) == 0
    assert (tmp_path / "v" / folder / "residual/mean_diff/layer1.pt").is_file()


def test_trait_interp_gets_no_null_where_its_reader_computes(run_folder, tmp_path):
    assert convert_("export", run_folder, tmp_path / "v", "--format", "trait_interp") == 0
    facts = json.loads((tmp_path / "v/response__5/residual/mean_diff/metadata.json").read_text())
    # As its load_vector_with_baseline asks.
    assert [facts["layers"][n].get("baseline", 0.0) for n in "123"] == [0.0, 0.0, 0.0]


def test_traits_do_not_overwrite_each_other(tmp_path, capsys):
    with Run.open(tmp_path / "run") as run:
        table = vectors.to_table([row(1), row(1, trait="guilt")])
        run.commit("t1", {"vectors": table}, model="toy", provenance={})
    assert convert_("export", tmp_path / "run", tmp_path / "v", "--format", "trait_interp") == 2
    assert "a folder for each trait" in "".join(capsys.readouterr())
    assert not (tmp_path / "v").exists()


@settings(deadline=None, max_examples=60)
@given(
    tokens=st.text(max_size=20) | st.sampled_from(["../../../x", "/etc[:]", "..", "a/../../b"]),
    method=st.text(max_size=20) | st.sampled_from(["../../x", "..", "/tmp/x"]),
)
def test_no_position_or_method_leads_out_of_the_folder(tmp_path_factory, tokens, method):
    folder = tmp_path_factory.mktemp("fuzz")
    named = vector(1, tokens=tokens, method=method, facts={"bias": None, "baseline": None})
    with contextlib.suppress(UnsafeNameError):
        convert.write_trait_interp([named], folder / "inside" / "out")
    assert {path.name for path in folder.iterdir()} <= {"inside"}
    assert {path.name for path in folder.glob("inside/*")} <= {"out"}
    assert len(list(folder.rglob("*.pt"))) <= 1


def test_the_registry_is_asked_by_the_command_line(tmp_path, capsys):
    with Run.open(tmp_path / "run") as run:
        tables = {
            "vectors": vectors.to_table([row(1), row(2), row(2, "probe"), row(1, trait="guilt")]),
            "evaluation": schema.from_rows("evaluation", [score(1, 0.7), score(2, 0.95)]),
        }
        run.commit("t1", tables, model="toy", provenance={})

    def listed(*options) -> list[str]:
        assert convert_("list", tmp_path / "run", *options) == 0
        return [line.split("sha256")[0].rstrip() for line in capsys.readouterr().out.splitlines()]

    best = "anxiety  toy  layer 2 resid_post mean_difference response[:5]  auroc 0.9500"
    assert listed("--min-auroc", 0.9) == [best]
    assert listed()[0] == best
    assert len(listed()) == 4
    assert len(listed("--trait", "anxiety", "--layer", 2)) == 2
    assert len(listed("--method", "probe", "--site", "resid_post", "--model", "toy")) == 1
    assert len(listed("--tokens", "response[:5]")) == 4
    assert "not evaluated" in listed("--trait", "guilt")[0]
    assert convert_("list", tmp_path / "run", "--site", "mlp_out") == 2


@pytest.mark.parametrize("verb", ["list", "export", "delta"])
def test_a_folder_that_is_no_run_is_refused_and_not_made(tmp_path, capsys, verb):
    nowhere, out = tmp_path / "nowhere", tmp_path / "out"
    more = {"list": (), "export": (out, "--format", "gguf"), "delta": ("vetting", out)}[verb]
    assert convert_(verb, nowhere, *more) == 2
    assert "is no run folder" in "".join(capsys.readouterr())
    assert not nowhere.exists()


@pytest.mark.parametrize(
    "kind", ["gguf", "easysteer", "vllm_lens", "persona_vectors", "trait_interp"]
)
@pytest.mark.parametrize(
    "content", [None, b"", b"junk\n", b"[{}]", b"{}", b"GGUF\x03", b"\x80\x02"]
)
def test_what_cannot_be_read_is_refused_in_one_sentence(tmp_path, capsys, kind, content):
    source = tmp_path / "source"
    if content is not None:
        source.write_bytes(content)
    out = tmp_path / "out.safetensors"
    assert convert_("import", source, out, "--format", kind) == 2
    said = "".join(capsys.readouterr())
    assert said.startswith("refused: ")
    assert said.count("\n") == 1
    assert not out.exists()


def test_a_damaged_run_is_refused_in_one_sentence(run_folder, tmp_path, capsys):
    path = next((run_folder / "data/vectors").rglob("*.parquet"))
    path.write_bytes(path.read_bytes()[:-1])
    assert convert_("export", run_folder, tmp_path / "v", "--format", "vllm_lens") == 2
    assert "is not what was committed" in "".join(capsys.readouterr())
    path.unlink()
    assert convert_("list", run_folder) == 2
    assert "is committed but not in" in "".join(capsys.readouterr())


def test_a_place_that_cannot_be_written_is_refused(run_folder, tmp_path, capsys):
    out = tmp_path / "no/such/folder/v.json"
    assert convert_("export", run_folder, out, "--format", "vllm_lens") == 2
    assert "No such file or directory" in "".join(capsys.readouterr())


@pytest.mark.parametrize("kind", ["gguf", "easysteer", "vllm_lens", "persona_vectors"])
def test_what_is_exported_is_imported_to_the_last_bit(run_folder, tmp_path, kind):
    options = ("--format", kind, "--scale", 1, "--num-layers", 4, "--model-hint", "toy")
    assert convert_("export", run_folder, tmp_path / "v", *options) == 0
    back = tmp_path / "back.safetensors"
    assert convert_("import", tmp_path / "v", back, "--format", kind) == 0
    found = load_file(back)
    assert {name: r.tobytes() for name, r in found.items()} == {
        f"layer.{layer}": direction(layer).tobytes() for layer in (1, 2, 3)
    }


def test_by_default_the_length_before_normalising_is_exported(run_folder, tmp_path):
    assert (
        convert_("export", run_folder, tmp_path / "v", "--format", "vllm_lens", "--layer", 3) == 0
    )
    assert convert_("import", tmp_path / "v", tmp_path / "b", "--format", "vllm_lens") == 0
    assert np.isclose(np.linalg.norm(load_file(tmp_path / "b")["layer.3"]), 5.0)


def test_a_pickle_that_would_run_code_is_not_loaded(tmp_path):
    class Harmful:
        def __reduce__(self):
            return print, ("ran",)

    (tmp_path / "v.pt").write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(pickle.UnpicklingError):
        convert.read_persona_vectors(tmp_path / "v.pt")


def test_nothing_that_fits_is_refused(run_folder, tmp_path, capsys):
    out = tmp_path / "v.gguf"
    assert convert_("export", run_folder, out, "--format", "gguf", "--trait", "joy") == 2
    assert "no vector that fits" in "".join(capsys.readouterr())
    with pytest.raises(UserError, match=r"layer<L>\.pt"):
        convert.read_trait_interp(tmp_path)


def test_a_delta_log_lists_the_same_files(run_folder, tmp_path):
    out = tmp_path / "delta"
    assert convert_("delta", run_folder, "vetting", out) == 0
    lines = [json.loads(line) for line in (out / f"_delta_log/{0:020d}.json").open()]
    (added,) = [line["add"] for line in lines if "add" in line]
    source = next((run_folder / "data/vetting").rglob("*.parquet"))
    assert (out / added["path"]).stat().st_ino == source.stat().st_ino
    assert json.loads(added["stats"]) == {"numRecords": 20}
    fields = json.loads(lines[1]["metaData"]["schemaString"])["fields"]
    assert [f["name"] for f in fields[:3]] == ["task_id", "model", "trait"]
    assert convert_("delta", run_folder, "vetting", out) == 2


def test_a_delta_table_is_read_by_polars(run_folder, tmp_path):
    pytest.importorskip("deltalake", reason="reading a Delta table needs the deltalake package")
    convert.delta(
        convert.parser().parse_args(["delta", str(run_folder), "vectors", str(tmp_path / "d")]),
        Console(),
    )
    got = polars.read_delta(str(tmp_path / "d"))
    assert got["layer"].to_list() == [1, 2, 3]
