"""``stream=true`` prints a completion token by token while two real ranks write it through Ray."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from storage.manifest import Run
from tests.head import Head

pytestmark = pytest.mark.ray

NEW = 24
# What is written goes to stderr piece by piece, so that the test sees each write by itself.
WATCHED = """
import sys

class Out:
    def write(self, text):
        print("wrote", repr(text), file=sys.stderr, flush=True)

    def flush(self):
        pass

sys.stdout = Out()
from jobs.entry import main

raise SystemExit(main("generate", sys.argv[1:]))
"""


def test_the_command_prints_each_token_as_it_comes(repo_root, tmp_path):
    arguments = [
        "generate.prompt=How was your day?",
        f"generate.max_new_tokens={NEW}",
        "stream=true",
        "cluster.tensor_parallel_size=2",
        f"run_dir={tmp_path / 'run'}",
    ]
    with Head() as head:
        done = subprocess.run(
            [sys.executable, "-c", WATCHED, *arguments],
            cwd=tmp_path,
            env={**head.environment, "RAY_ADDRESS": head.address, "PYTHONPATH": str(repo_root)},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line[6:] for line in done.stderr.splitlines() if line.startswith("wrote ")]
    written = [ast.literal_eval(line) for line in lines]
    with Run.open(tmp_path / "run") as run:
        (row,) = run.read("responses").to_pylist()
    assert len(row["completion_ids"]) == NEW
    whole = next(n for n, text in enumerate(written) if row["completion"] in text)
    streamed = [text for text in written[:whole] if text and text in row["completion"]]
    assert row["completion"].startswith("".join(written[:whole])[-len(row["completion"]) :].strip())
    assert len(streamed) > NEW / 2  # most tokens are text of their own
