"""Every commit says how it was made, and nothing about when or where."""

from __future__ import annotations

import json
import platform
from dataclasses import replace
from importlib import metadata

import pytest

from conf.resolve import JobRequest
from jobs.entry import main
from jobs.preflight import experts_held, identity, read_model
from jobs.provenance import PACKAGES, provenance, versions
from jobs.task import NUMERICS, digest


def request_for(*typed: str) -> JobRequest:
    found: list[JobRequest] = []

    def take(points, console):
        found.extend(points)
        return 0

    assert main("steer", list(typed), runner=take) == 0
    return found[0]


def test_the_versions_are_those_installed() -> None:
    found = versions()

    assert found["python"] == platform.python_version()
    assert found["torch"] == metadata.version("torch")
    assert found["transformers"].startswith("5.23.")
    assert set(found) <= {"python", *PACKAGES}


def test_a_package_that_is_not_installed_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "traitmill":
            raise metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(metadata, "version", version)

    assert "traitmill" not in versions()
    assert versions()["ray"] == "1.0"


def test_a_commit_names_the_model_its_arithmetic_and_its_ranks() -> None:
    request = request_for("cluster.tensor_parallel_size=4")
    made = provenance(request, read_model(request))

    assert made["model"] == "toy_mla"
    assert len(str(made["model_digest"])) == 64
    assert (made["dtype"], made["device"], made["tensor_parallel_size"]) == ("float32", "cpu", 4)
    assert made["numerics"] == NUMERICS


def test_the_same_request_has_the_same_provenance_and_a_json_form() -> None:
    request = request_for("seed=3")
    model = read_model(request)

    first = provenance(request, model)
    assert digest(first) == digest(provenance(request, model))
    assert json.loads(json.dumps(first)) == first


def test_no_time_host_or_path_is_in_it() -> None:
    request = request_for("run_dir=/some/where")
    text = json.dumps(provenance(request, read_model(request)))

    assert platform.node() not in text
    assert "/some/where" not in text
    assert set(json.loads(text)) == {
        "model",
        "model_digest",
        "dtype",
        "expert_weights",
        "device",
        "tensor_parallel_size",
        "numerics",
        "versions",
    }


def test_two_models_have_two_digests() -> None:
    mla, gqa = request_for("model=toy_mla"), request_for("model=toy_gqa")

    assert read_model(mla).digest != read_model(gqa).digest


def test_what_experts_are_held_in_is_told_and_nothing_of_a_dense_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    request = request_for("model=toy_mla")
    model = read_model(request)
    dense = replace(model, facts=replace(model.facts, num_experts=0))
    assert experts_held(model) == provenance(request, model)["expert_weights"] == "float32"
    assert experts_held(dense) is None
    assert identity(request, model, "lexicon 1").experts == "float32"
    monkeypatch.setattr("jobs.preflight.kept_blocks", lambda *_: ((128, 128), (128, 128)))
    assert experts_held(model) == identity(request, model, "lexicon 1").experts == "fp8"
