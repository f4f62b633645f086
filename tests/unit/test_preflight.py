"""What the model's own files say against a request is said before Ray starts."""

from __future__ import annotations

import json

import pytest

from conf.errors import UserError
from jobs.entry import compose
from jobs.preflight import engine_spec, group_spec, identity, read_model, read_models
from jobs.report.console import Console
from tests.standin import make_model_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_model_folder(tmp_path_factory.mktemp("models") / "standin")


def request(*overrides: str):
    (point,) = compose("steer", list(overrides), Console())
    return point


def test_the_engine_loads_what_the_settings_say():
    spec = engine_spec(
        request("cluster.tensor_parallel_size=4", "cluster.max_batch_requests=17", "model=toy_gqa")
    )
    assert (spec.tensor_parallel_size, spec.max_batch_requests) == (4, 17)
    assert spec.model_path.endswith("jobs/toy/models/toy_gqa")
    assert (spec.dtype, spec.device, spec.weights) == ("float32", "cpu", "checkpoint")


def test_a_relative_model_folder_is_the_same_for_every_process(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert engine_spec(request("model.path=standin")).model_path == str(folder)


def test_the_group_is_named_after_the_model_and_limited_by_the_cluster(folder):
    late = ("cluster.stall_timeout_s=7", "cluster.straggler_timeout_s=6")
    spec = group_spec(request(f"model.path={folder}", *late))
    assert (spec.name, spec.backend) == ("standin", "gloo")
    assert (spec.stall_timeout_s, spec.straggler_timeout_s) == (7.0, 6.0)


def test_facts_and_digest_come_from_small_files(folder):
    model = read_model(request(f"model.path={folder}"))
    assert (model.facts.num_layers, model.facts.hidden_size) == (4, 16)
    assert len(model.digest) == 64


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("layer=4", "layer=4 does not exist: model=standin has 4 layers; use 0 to 3"),
        ("cluster.tensor_parallel_size=3", r"tensor_parallel_size=3 .*use one of 1, 2"),
        ("steering.max_new_tokens=512", "leaves no room for a prompt: .* 512 tokens"),
        ("capture.max_new_tokens=9999", "capture.max_new_tokens=9999"),
    ],
)
def test_a_request_that_does_not_fit_names_field_value_and_way_out(folder, override, sentence):
    with pytest.raises(UserError, match=sentence):
        read_model(request(f"model.path={folder}", override))


def test_a_broken_config_file_is_named_by_its_line(tmp_path):
    (tmp_path / "config.json").write_text('{\n"model_type": \n')
    with pytest.raises(UserError, match=r"not JSON \(line"):
        read_model(request(f"model.path={tmp_path}"))


def test_an_unknown_architecture_lists_those_that_work(folder, tmp_path):
    config = json.loads((folder / "config.json").read_text()) | {"model_type": "mamba"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"'mamba'.*deepseek_v3"):
        read_model(request(f"model.path={tmp_path}"))


def test_the_identity_follows_weights_dtype_and_tokenizer(folder, tmp_path):
    asked = request(f"model.path={folder}")
    model = read_model(asked)
    one = identity(asked, model, "lexicon 1")
    assert one.model["model"] == model.digest
    assert one.num_layers == 4

    other = make_model_folder(tmp_path / "standin")
    text = (other / "tokenizer_config.json").read_text()
    (other / "tokenizer_config.json").write_text(text.replace("}", ', "chat_template": "x"}'))
    asked = request(f"model.path={other}")
    two = identity(asked, read_model(asked), "lexicon 1")
    assert two.model_digest == one.model_digest
    assert two.tokenizer_digest != one.tokenizer_digest


def test_a_model_without_a_tokenizer_is_refused(folder, tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    asked = request(f"model.path={tmp_path}")
    with pytest.raises(UserError, match="has no tokenizer"):
        identity(asked, read_model(asked), "lexicon 1")


def second(folder, name: str, **changes: int):
    """Another model folder, its config changed; what digests read stays different by the name."""
    other = make_model_folder(folder.parent / name)
    config = json.loads((other / "config.json").read_text()) | changes
    (other / "config.json").write_text(json.dumps(config))
    return other


def both(folder, other):
    two = ("extract_model=toy_mla", f"extract_model.path={other}")
    return request(f"model.path={folder}", *two)


def test_two_models_of_one_shape_are_read_by_their_roles(folder):
    other = second(folder, "base", rope_theta=5000)
    models = read_models(both(folder, other))
    assert list(models) == ["model", "extract_model"]
    assert models["extract_model"].spec.model_path == str(other)
    assert models["extract_model"].digest != models["model"].digest


def test_the_same_model_twice_is_one_model(folder):
    assert list(read_models(both(folder, folder))) == ["model"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"hidden_size": 32}, "extract_model=base has hidden_size 32 and model=standin has 16"),
        ({"num_hidden_layers": 3}, "extract_model=base has num_layers 3 and model=standin has 4"),
    ],
)
def test_models_of_different_shape_are_refused_before_anything_starts(folder, changes, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        read_models(both(folder, second(folder, "base", **changes)))
    assert "use two checkpoints of the same shape" in str(caught.value)
