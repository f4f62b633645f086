"""``stream=true`` prints a completion token by token while a real rank writes it through Ray."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from storage.manifest import Run

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


def test_the_command_prints_each_token_as_it_comes(head, repo_root, tmp_path):
    arguments = [
        "generate.prompt=How was your day?",
        f"generate.max_new_tokens={NEW}",
        "stream=true",
        "cluster.tensor_parallel_size=1",
        f"run_dir={tmp_path / 'run'}",
    ]
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, *arguments],
        cwd=tmp_path,
        env={**head.environment, "RAY_ADDRESS": head.address, "PYTHONPATH": str(repo_root)},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line[6:] for line in done.stderr.splitlines() if line.startswith("wrote ")]
    written = [ast.literal_eval(line) for line in lines]
    with Run.open(tmp_path / "run") as run:
        (row,) = run.read("responses").to_pylist()
    assert len(row["completion_ids"]) == NEW
    whole = next(n for n, text in enumerate(written) if row["completion"] in text)
    pieces, shown = [], 0
    for text in written[:whole]:  # lines of progress may come in between
        piece = text if shown else text.lstrip()
        if piece and row["completion"].startswith(piece, shown):
            pieces.append(piece)
            shown += len(piece)
    assert "".join(pieces) == row["completion"]
    assert len(pieces) > NEW / 2  # most tokens are text of their own
