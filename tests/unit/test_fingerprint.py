"""The name of a resident group changes with what it would answer, and with nothing else."""

from __future__ import annotations

import ast
import dataclasses
import shutil

import pytest

from actors.fingerprint import FILES, IN_RANKS, ROOT, engine_hash, fingerprint
from actors.group_spec import GroupSpec
from actors.request import EngineSpec

SPEC = EngineSpec(model_path="/models/a")
CLUSTER = GroupSpec(name="a")


@pytest.mark.parametrize(
    "change",
    [
        {"model_path": "/models/b"},
        {"dtype": "bfloat16"},
        {"tensor_parallel_size": 2},
        {"random_seed": 1},
        {"max_batch_tokens": 1},
    ],
)
def test_another_engine_has_another_fingerprint(change):
    other = dataclasses.replace(SPEC, **change)
    assert fingerprint(other, CLUSTER) != fingerprint(SPEC, CLUSTER)


def test_a_model_counts_by_its_content_wherever_it_lies(toy_mla_path, tmp_path):
    """A submitted job has its own copy of the project, and of the models in it."""
    copy = tmp_path / "elsewhere"
    shutil.copytree(toy_mla_path, copy)
    here = fingerprint(EngineSpec(model_path=str(toy_mla_path)), CLUSTER)
    there = EngineSpec(model_path=str(copy))
    assert fingerprint(there, CLUSTER) == here
    weights = copy / "model.safetensors"
    body = bytearray(weights.read_bytes())
    body[-1] ^= 1
    weights.write_bytes(body)
    assert fingerprint(there, CLUSTER) != here


def test_time_limits_and_names_leave_it_alone():
    other = dataclasses.replace(CLUSTER, name="b", stall_timeout_s=1.0, cpus_per_rank=3.0)
    assert fingerprint(SPEC, other) == fingerprint(SPEC, CLUSTER)


def test_another_backend_changes_it():
    other = dataclasses.replace(CLUSTER, backend="nccl")
    assert fingerprint(SPEC, other) != fingerprint(SPEC, CLUSTER)


def test_it_is_short_and_repeatable():
    assert fingerprint(SPEC, CLUSTER) == fingerprint(SPEC, CLUSTER)
    assert len(fingerprint(SPEC, CLUSTER)) == 12


def test_edited_rank_code_changes_the_hash_and_other_code_does_not(tmp_path):
    copy = tmp_path / "actors"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns("__pycache__"))
    before = engine_hash(copy)
    assert before == engine_hash()
    (copy / "lexicon.py").write_text("changed = True\n")
    assert engine_hash(copy) == before
    with (copy / "engine" / "__init__.py").open("a") as file:
        file.write("# changed\n")
    edited = engine_hash(copy)
    assert edited != before
    (copy / "kernels" / "new.py").write_text("")
    assert engine_hash(copy) not in (before, edited)


def test_every_file_that_is_hashed_exists():
    assert [name for name in (*FILES, *IN_RANKS) if not (ROOT / name).exists()] == []


def imported(module, known):
    """Modules of ours that a module imports, and theirs, by file name under ``actors``."""
    path = ROOT / f"{module.removeprefix('actors.').replace('.', '/')}.py"
    name = path.relative_to(ROOT).as_posix()
    if name in known or not path.exists():
        return
    known.add(name)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("actors."):
            imported(node.module, known)


def test_everything_that_a_rank_imports_is_in_the_hash():
    """A group's ranks are started again from the disk, while its supervisor keeps what it has."""
    known = set()
    imported("actors.rank", known)
    covered = {*FILES, *(one for one in known if one.split("/")[0] in IN_RANKS)}
    assert sorted(known - covered) == []
