"""Vectors are found by what they are for, and leave in forms that their consumers read."""

from __future__ import annotations

import base64
import json

import gguf
import numpy as np
import pytest
import torch
from safetensors import safe_open

from conf.errors import UserError
from storage import exports, schema, vectors
from storage.errors import CorruptFileError
from storage.manifest import Run

WIDTH = 64


def direction(seed: int) -> np.ndarray:
    row = np.random.default_rng(seed).standard_normal(WIDTH).astype(np.float32)
    return (row / np.linalg.norm(row)).astype(np.float32)


def row(layer: int, method: str = "mean_difference", **changes) -> dict:
    facts = {
        "trait": "anxiety",
        "layer": layer,
        "site": "resid_post",
        "method": method,
        "tokens": "response[:5]",
        "direction": direction(layer),
        "norm": 2.0 + layer,
        "mean_residual_norm": 10.0,
        "n_positive": 5,
        "n_negative": 5,
        "model_digest": "m",
        "dataset_digest": "d",
    }
    return {**facts, **changes}


def score(layer: int, auroc: float, method: str = "mean_difference") -> dict:
    keys = {k: row(layer, method)[k] for k in ("trait", "layer", "site", "method", "tokens")}
    numbers = dict.fromkeys(
        ("cohens_d", "accuracy", "ci_low", "ci_high", "random_auroc"), 0.5
    ) | dict.fromkeys(("n_positive", "n_negative", "folds"), 5)
    return {**keys, **numbers, "auroc": auroc, "polarity_correct": True}


@pytest.fixture
def run(tmp_path):
    rows = [row(layer) for layer in (1, 2, 3)] + [row(2, "probe", direction=direction(9))]
    rows.append(row(0, trait="guilt"))
    scores = [score(1, 0.7), score(2, 0.9), score(2, 0.8, "probe")]
    with Run.open(tmp_path / "run") as opened:
        opened.commit(
            "t1",
            {
                "vectors": vectors.to_table(rows),
                "evaluation": schema.from_rows("evaluation", scores),
            },
            model="toy",
            provenance={},
        )
        yield opened


def test_the_best_score_comes_first_and_the_unscored_last(run):
    found = vectors.find(run, trait="anxiety")
    assert [(v.layer, v.method, v.auroc) for v in found] == [
        (2, "mean_difference", 0.9),
        (2, "probe", 0.8),
        (1, "mean_difference", 0.7),
        (3, "mean_difference", None),
    ]


@pytest.mark.parametrize(
    ("query", "layers"),
    [
        ({"layer": 2}, [2, 2]),
        ({"layer": [1, 3]}, [1, 3]),
        ({"method": "probe"}, [2]),
        ({"min_auroc": 0.75}, [2, 2]),
        ({"trait": "guilt"}, [0]),
        ({"model": "other"}, []),
        ({"tokens": "response[:5]", "site": "resid_post", "layer": 1}, [1]),
    ],
)
def test_every_condition_narrows(run, query, layers):
    assert [v.layer for v in vectors.find(run, **query)] == layers


def test_a_vector_comes_back_to_the_last_bit_with_its_provenance(run):
    (found,) = vectors.find(run, layer=3)
    assert found.direction.tobytes() == direction(3).tobytes()
    assert found.sha256 == vectors.digest_of(direction(3))
    assert found.norm == 5.0
    assert found.facts["dataset_digest"] == "d"


def test_a_direction_that_is_not_its_digest_is_refused(tmp_path):
    bad = vectors.to_table([row(1)]).to_pylist()[0] | {"sha256": "0" * 64}
    with Run.open(tmp_path / "bad") as run:
        run.commit("t", {"vectors": schema.from_rows("vectors", [bad])}, model="m", provenance={})
        with pytest.raises(CorruptFileError, match="anxiety layer 1"):
            vectors.find(run)


def test_safetensors_are_read_by_safetensors(run, tmp_path):
    found = vectors.find(run, trait="anxiety")
    exports.write_safetensors(found, tmp_path / "v.safetensors")
    with safe_open(tmp_path / "v.safetensors", "pt") as file:
        for vector in found:
            assert file.get_tensor(vector.name).numpy().tobytes() == vector.direction.tobytes()
            assert json.loads(file.metadata()[vector.name])["sha256"] == vector.sha256
    assert len(exports.read_safetensors(tmp_path / "v.safetensors")) == 4


def test_gguf_is_read_by_the_gguf_package_and_equals_the_vector(run, tmp_path):
    found = vectors.find(run, trait="anxiety", method="mean_difference")
    directions = exports.by_layer(found, scale=1.0)
    exports.write_gguf(directions, tmp_path / "v.gguf", model_hint="qwen3_moe")
    reader = gguf.GGUFReader(str(tmp_path / "v.gguf"))
    assert reader.get_field("general.architecture").contents() == "controlvector"
    assert reader.get_field("controlvector.model_hint").contents() == "qwen3_moe"
    assert reader.get_field("controlvector.layer_count").contents() == 3
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    assert sorted(tensors) == ["direction.1", "direction.2", "direction.3"]
    for vector in found:
        tensor = tensors[f"direction.{vector.layer}"]
        assert tensor.tensor_type == gguf.GGMLQuantizationType.F32
        assert tensor.data.tobytes() == vector.direction.tobytes()
    back = exports.read_gguf(tmp_path / "v.gguf")
    assert all(exports.same_direction(back[v.layer], v.direction) for v in found)


def test_easysteer_gets_its_method_and_layer_0(run, tmp_path):
    found = vectors.find(run, trait="guilt")
    directions = exports.by_layer(found, scale=1.0)
    with pytest.raises(UserError, match="layer 0"):
        exports.write_gguf(directions, tmp_path / "v.gguf", model_hint="x")
    exports.write_gguf(
        directions, tmp_path / "v.gguf", model_hint="x", method="diffmean", allow_layer_0=True
    )
    reader = gguf.GGUFReader(str(tmp_path / "v.gguf"))
    assert reader.get_field("controlvector.method").contents() == "diffmean"
    assert reader.tensors[0].data.tobytes() == found[0].direction.tobytes()


def test_vllm_lens_json_decodes_as_its_codec_says(run, tmp_path):
    zstd = pytest.importorskip("zstandard", reason="needs the zstandard package to read back")
    found = vectors.find(run, trait="anxiety", method="mean_difference")
    exports.write_vllm_lens(exports.by_layer(found, scale=1.0), tmp_path / "v.json")
    (vector,) = json.loads((tmp_path / "v.json").read_text())
    packed = vector["activations"]
    raw = zstd.ZstdDecompressor().decompress(base64.b64decode(packed["data"]))
    rows = torch.from_numpy(
        np.frombuffer(raw, np.dtype(packed["dtype"])).reshape(packed["shape"]).copy()
    )
    assert vector["layer_indices"] == [1, 2, 3]
    assert [r.numpy().tobytes() for r in rows] == [direction(n).tobytes() for n in (1, 2, 3)]


def test_vllm_lens_json_round_trips(run, tmp_path):
    directions = exports.by_layer(vectors.find(run, method="probe"))
    exports.write_vllm_lens(directions, tmp_path / "v.json")
    back = exports.read_vllm_lens(tmp_path / "v.json")
    assert back[2].tobytes() == directions[2].tobytes()
    assert np.isclose(np.linalg.norm(back[2]), 4.0)


def test_two_vectors_of_one_layer_do_not_make_one_file(run):
    with pytest.raises(UserError, match="choose one trait"):
        exports.by_layer(vectors.find(run, trait="anxiety"))


def test_another_gguf_file_is_no_control_vector(tmp_path):
    writer = gguf.GGUFWriter(str(tmp_path / "m.gguf"), "llama")
    writer.add_tensor("token_embd.weight", np.zeros((2, 2), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(UserError, match="not a control vector"):
        exports.read_gguf(tmp_path / "m.gguf")
