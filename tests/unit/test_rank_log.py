"""Rank 0 writes where Ray looks, and every other rank beside it."""

from __future__ import annotations

import subprocess
import sys

import pytest

SPEAKER = """
import logging, os, sys
from actors.rank_log import open_log
path = open_log("traitmill/toy/rank{rank}", {rank})
print("printed")
sys.stdout.flush()
os.system("echo by a library >&2")
logging.getLogger("actors.engine").info("loaded in %d s", 3)
logging.getLogger("other").info("not ours")
print(path)
"""


def speak(folder, rank, stderr):
    """What a process says, and where: its output, its log file as Ray keeps it, and its own."""
    done = subprocess.run(
        [sys.executable, "-c", SPEAKER.format(rank=rank)],
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        check=True,
    )
    own = {one.name: one.read_text() for one in folder.glob("traitmill-*")}
    return done.stdout, own


def test_the_first_rank_speaks_where_ray_forwards_it(tmp_path):
    log = tmp_path / "worker-1.err"
    with log.open("w") as stderr:
        said, own = speak(tmp_path, 0, stderr)
    assert own == {}
    assert said == "printed\nNone\n"
    assert log.read_text() == "by a library\nloaded in 3 s\n"


@pytest.mark.parametrize("rank", [1, 7])
def test_any_other_rank_has_a_file_of_its_own_beside_it(tmp_path, rank):
    log = tmp_path / "worker-1.err"
    with log.open("w") as stderr:
        said, own = speak(tmp_path, rank, stderr)
    ((name, text),) = own.items()
    assert name.startswith(f"traitmill-toy-rank{rank}-")
    assert text.splitlines()[:3] == ["printed", "by a library", "loaded in 3 s"]
    assert text.endswith(f"{tmp_path / name}\n")
    assert (said, log.read_text()) == ("", "")


def test_a_process_that_writes_no_log_keeps_its_streams(tmp_path):
    said, own = speak(tmp_path, 1, subprocess.DEVNULL)
    assert own == {}
    assert said == "printed\nNone\n"
