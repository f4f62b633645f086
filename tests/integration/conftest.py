"""One head node for all tests that need a Ray and do nothing to it: starting one takes seconds."""

from __future__ import annotations

import atexit
import os
import sys

import pytest
import ray

from tests.faulty import FOLDER_VARIABLE
from tests.head import Head


@pytest.fixture(scope="session")
def faults(tmp_path_factory):
    """Where ranks on the head read which fault is theirs; they inherit its name."""
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="session")
def head(faults):
    """A head node of our own, on the loopback address and with a token."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FOLDER_VARIABLE, str(faults))
        made = Head()
    with made:
        yield made


@pytest.fixture(scope="module")
def joined(head):
    """Jobs and commands of this module join the head instead of starting a Ray."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", head.address)
        yield head


@pytest.fixture(scope="module")
def local_ray(head):
    """This process is a driver on the head; what it started there ends with the module."""
    ray.init(address=head.address, log_to_driver=False)
    yield head
    ray.shutdown()


_status = pytest.StashKey[int]()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session, exitstatus):
    """Remember how the tests ended."""
    session.config.stash[_status] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config):
    """End without tearing the interpreter down, once all that waits for its end has run.

    Threads of Ray's core outlive the interpreter that they call into: now and then a run whose
    tests had all passed ended with a segmentation fault, and so as failed.
    """
    if _status in config.stash:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(config.stash[_status])
