"""Every snippet of storage/README.md runs as it stands, on this disk and from a bucket."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow.fs
import pytest

from storage.manifest import Run
from storage.schema import from_rows
from storage.upload import sync
from storage.vectors import to_table
from tests.faults.worker import write_task
from tests.s3_server import CREDENTIALS, moto_endpoint, store_at
from tests.unit.test_ranges import pooled_rows
from tests.unit.test_vectors import row, score

TEXT = (Path(__file__).parents[2] / "storage/README.md").read_text()
SNIPPETS = re.findall(r"^```python( bucket)?\n(.*?)^```", TEXT, re.M | re.S)
LOCAL = [code for bucket, code in SNIPPETS if not bucket]
REMOTE = [code for bucket, code in SNIPPETS if bucket]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("readme") / "run"
    with Run.open(root) as run:
        write_task(run, "t4", 0)
        tables = {
            "pooled": from_rows("pooled", pooled_rows()[:122]),
            "vectors": to_table([row(0), row(1)]),
            "evaluation": from_rows("evaluation", [score(0, 0.9), score(1, 0.8)]),
        }
        run.commit("t5", tables, model="toy", provenance={})
        run.write_manifest()
        run.write_readme()
    return root


def test_there_is_a_snippet_for_each_reader():
    for word in ("load_dataset", "read_parquet", "duckdb", "scan_parquet", "ActivationReader"):
        assert word in "".join(LOCAL)
    for word in ("load_dataset", "read_parquet", "duckdb", "scan_parquet", "ActivationReader"):
        assert word in "".join(REMOTE)


@pytest.mark.parametrize("code", LOCAL, ids=lambda code: code.split()[1])
def test_a_local_snippet_runs(code, run_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hf"))
    exec(compile(code, "README", "exec"), {"RUN": str(run_folder)})
    printed = capsys.readouterr().out
    assert printed
    if "find(run" in code:
        assert [line.split()[1] for line in printed.splitlines()] == ["0.9", "0.8"]
    if '"pooled"' in code:
        assert printed == "2\n"


@pytest.fixture(scope="module")
def endpoint():
    with moto_endpoint() as address:
        yield address


@pytest.mark.parametrize("code", REMOTE, ids=["ours", "pandas", "datasets", "polars"])
def test_a_bucket_snippet_runs(code, run_folder, endpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "hf"))
    # The tests forbid the hub; the bucket here is on this machine.
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    store = store_at(endpoint, prefix="readme")
    with Run.open(run_folder) as run:
        sync(run, store, "to_bucket")
    names = {
        "STORE": store,
        "FRESH": str(tmp_path / "fresh"),
        "BUCKET": "bucket",
        "PREFIX": "readme",
        "ARROW_S3": pyarrow.fs.S3FileSystem(
            access_key="testkey",
            secret_key="testsecret",
            endpoint_override=endpoint,
            region="us-east-1",
        ),
        "POLARS_OPTIONS": {
            "aws_access_key_id": "testkey",
            "aws_secret_access_key": "testsecret",
            "aws_region": "us-east-1",
            "aws_endpoint_url": endpoint,
            "aws_allow_http": "true",
        },
    }
    exec(compile(code, "README", "exec"), names)
    assert capsys.readouterr().out
