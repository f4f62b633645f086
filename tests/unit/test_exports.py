"""A vector leaves in each consumer's own form, and no name of it can lead out of a folder."""

from __future__ import annotations

import base64
import builtins
import json

import gguf
import numpy as np
import pytest
import torch
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from conf.errors import UserError
from storage import exports
from storage.vectors import TraitVector, digest_of

WIDTH = 32


def vector(layer: int = 1, **changes: object) -> TraitVector:
    draw = np.random.default_rng(layer).standard_normal(WIDTH).astype(np.float32)
    direction = (draw / np.linalg.norm(draw)).astype(np.float32)
    facts: dict[str, object] = {
        "trait": "anxiety",
        "layer": layer,
        "site": "resid_post",
        "method": "probe",
        "tokens": "response[:5]",
        "model": "toy",
        "direction": direction,
        "norm": 3.0,
        "sha256": digest_of(direction),
        "auroc": 0.9,
        "facts": {"bias": None},
    }
    return TraitVector(**{**facts, **changes})  # type: ignore[arg-type]


def test_one_direction_a_layer_has_the_length_before_normalising():
    directions = exports.by_layer([vector(1), vector(4, norm=0.5)])
    assert sorted(directions) == [1, 4]
    assert np.linalg.norm(directions[1]) == pytest.approx(3.0, rel=1e-6)
    assert np.linalg.norm(directions[4]) == pytest.approx(0.5, rel=1e-6)
    assert directions[1].dtype == np.float32


@pytest.mark.parametrize("scale", [1.0, 0.0, -2.5])
def test_a_given_length_replaces_it(scale):
    (direction,) = exports.by_layer([vector(1)], scale=scale).values()
    assert np.array_equal(direction, np.float32(scale) * vector(1).direction)


@pytest.mark.parametrize(
    "several", [[vector(1), vector(1)], [vector(1), vector(2, model="other")]], ids=str
)
def test_what_cannot_be_one_file_is_refused(several):
    with pytest.raises(UserError, match="one direction per layer of one model"):
        exports.by_layer(several)


def test_a_control_vector_holds_float32_of_every_layer(tmp_path):
    directions = {layer: vector(layer).direction for layer in (3, 1, 60)}
    exports.write_gguf(directions, tmp_path / "v.gguf", model_hint="kimi_k2")
    tensors = {t.name: t for t in gguf.GGUFReader(str(tmp_path / "v.gguf")).tensors}
    assert list(tensors) == ["direction.1", "direction.3", "direction.60"]
    for layer, direction in directions.items():
        found = tensors[f"direction.{layer}"]
        assert found.tensor_type == gguf.GGMLQuantizationType.F32
        assert found.data.tobytes() == direction.tobytes()


def test_a_control_vector_without_the_package_says_what_to_install(tmp_path, monkeypatch):
    plain = builtins.__import__

    def without(name, *rest, **named):
        if name == "gguf":
            raise ImportError(name)
        return plain(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"pip install 'traitmill\[gguf\]'"):
        exports.write_gguf({1: vector().direction}, tmp_path / "v.gguf", model_hint="x")
    assert not (tmp_path / "v.gguf").exists()


def test_vllm_lens_frames_are_zstd_of_float32_rows_in_layer_order(tmp_path):
    directions = {7: vector(7).direction, 2: vector(2).direction}
    exports.write_vllm_lens(directions, tmp_path / "v.json")
    (packed,) = json.loads((tmp_path / "v.json").read_text())
    assert packed["layer_indices"] == [2, 7]
    assert packed["norm_match"] is False
    frame = base64.b64decode(packed["activations"]["data"])
    raw = zstandard.ZstdDecompressor().decompress(frame)
    assert raw == directions[2].tobytes() + directions[7].tobytes()
    assert packed["activations"]["shape"] == [2, WIDTH]


def test_vllm_lens_lists_of_others_are_read_compressed_or_not_with_their_scale(tmp_path):
    rows = np.arange(6, dtype="<f4").reshape(2, 3)
    frame = zstandard.ZstdCompressor().compress(rows.tobytes())
    for body, compression in ((frame, "zstd"), (rows.tobytes(), None)):
        packed = {
            "data": base64.b64encode(body).decode(),
            "dtype": "float32",
            "shape": [2, 3],
            "compression": compression,
        }
        listed = [{"activations": packed, "layer_indices": [5, 9], "scale": 2.0}]
        (tmp_path / "v.json").write_text(json.dumps(listed))
        found = exports.read_vllm_lens(tmp_path / "v.json")
        assert found[5].tolist() == [0.0, 2.0, 4.0]
        assert found[9].tolist() == [6.0, 8.0, 10.0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_vllm_lens_tensors_of_each_dtype_are_read_as_the_tool_writes_them(tmp_path, dtype):
    """Its encoder: bfloat16 as int16 bit patterns with ``original_dtype``, others as they are."""
    rows = torch.tensor([[1.5, -2.0, 0.15625], [3.0e4, 0.0, -7.0]]).to(dtype)
    array = (rows.view(torch.int16) if dtype == torch.bfloat16 else rows).numpy()
    packed = {
        "data": base64.b64encode(zstandard.ZstdCompressor().compress(array.tobytes())).decode(),
        "dtype": str(array.dtype),
        "original_dtype": str(dtype),
        "shape": list(array.shape),
        "compression": "zstd",
    }
    one = {"activations": packed, "layer_indices": [4, 8], "position_indices": None}
    for listed in (one, [one]):
        (tmp_path / "v.json").write_text(json.dumps(listed))
        found = exports.read_vllm_lens(tmp_path / "v.json")
        assert found[4].dtype == np.float32
        assert np.stack([found[4], found[8]]).tolist() == rows.float().tolist()


@pytest.mark.parametrize(
    ("shape", "changes"), [([1, 2, 3], {}), ([2, 3], {"norm_match": True})], ids=["3D", "norm"]
)
def test_a_vector_that_is_no_plain_direction_is_refused(tmp_path, shape, changes):
    body = np.zeros(shape, "<f4").tobytes()
    packed = {"data": base64.b64encode(body).decode(), "dtype": "float32", "shape": shape}
    one = {"activations": packed, "layer_indices": list(range(shape[0])), **changes}
    (tmp_path / "v.json").write_text(json.dumps([one]))
    with pytest.raises(UserError, match="depends on position or norm"):
        exports.read_vllm_lens(tmp_path / "v.json")


def test_two_vectors_of_one_layer_are_not_merged(tmp_path):
    exports.write_vllm_lens({3: vector(3).direction}, tmp_path / "v.json")
    twice = json.loads((tmp_path / "v.json").read_text()) * 2
    (tmp_path / "v.json").write_text(json.dumps(twice))
    with pytest.raises(UserError, match="two vectors of layer 3"):
        exports.read_vllm_lens(tmp_path / "v.json")


def test_safetensors_carry_identity_and_digest(tmp_path):
    exports.write_safetensors([vector(1), vector(2, auroc=None)], tmp_path / "v.safetensors")
    with safe_open(tmp_path / "v.safetensors", "np") as file:
        facts = {name: json.loads(text) for name, text in file.metadata().items()}
        assert set(file.keys()) == set(facts)
        for name, each in facts.items():
            assert digest_of(file.get_tensor(name)) == each["sha256"]
    assert [each["auroc"] for each in facts.values()].count(None) == 1


@pytest.mark.parametrize("names", [["weight"], ["direction.1", "weight"]])
def test_other_gguf_files_are_no_control_vectors(tmp_path, names):
    writer = gguf.GGUFWriter(str(tmp_path / "m.gguf"), "llama")
    for name in names:
        writer.add_tensor(name, np.zeros((2, 2), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(UserError, match="not a control vector"):
        exports.read_gguf(tmp_path / "m.gguf")


@settings(deadline=None, max_examples=60)
@given(
    layers=st.lists(st.integers(1, 500), min_size=1, max_size=6, unique=True),
    width=st.integers(1, 40),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_directions_come_back_to_the_last_bit(tmp_path_factory, layers, width, seed):
    draw = np.random.default_rng(seed)
    sent = {layer: draw.standard_normal(width).astype(np.float32) for layer in layers}
    folder = tmp_path_factory.mktemp("exports")
    exports.write_gguf(sent, folder / "v.gguf", model_hint="x")
    exports.write_vllm_lens(sent, folder / "v.json")
    for back in (exports.read_gguf(folder / "v.gguf"), exports.read_vllm_lens(folder / "v.json")):
        assert sorted(back) == sorted(sent)
        assert all(exports.same_direction(back[n], sent[n]) for n in sent)


@settings(deadline=None, max_examples=100)
@given(trait=st.text(max_size=60), tokens=st.text(max_size=30))
def test_any_trait_name_is_a_tensor_name_and_never_a_path(tmp_path_factory, trait, tokens):
    folder = tmp_path_factory.mktemp("names")
    named = vector(1, trait=trait, tokens=tokens)
    exports.write_safetensors([named], folder / "v.safetensors")
    assert [path.name for path in folder.iterdir()] == ["v.safetensors"]
    (found,) = exports.read_safetensors(folder / "v.safetensors").values()
    assert exports.same_direction(found, named.direction)


def test_a_last_bit_is_a_difference():
    right = vector(1).direction
    wrong = right.copy()
    wrong.view(np.uint32)[0] ^= 1
    assert exports.same_direction(right, right.copy())
    assert not exports.same_direction(right, wrong)
