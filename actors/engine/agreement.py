"""Whether all ranks do the same, asked without a wait until the answer is needed."""

from __future__ import annotations

import numpy as np
import torch

from actors.engine.collectives import Collectives
from actors.engine.landing import start_fetch
from actors.engine.staging import stage


class RanksDisagree(RuntimeError):  # noqa: N818  named for what happened
    """Ranks ran different schedules or chose different tokens; the bundle has no answer."""


class Comparison:
    """The ranks' digests on their way to each other."""

    def __init__(
        self, collectives: Collectives, device: torch.device, digest: bytes, difference: str
    ) -> None:
        """Start to compare a sha256 digest. Collective.

        Args:
            collectives: Of the group.
            device: This rank's.
            digest: This rank's 32 bytes.
            difference: What ranks did whose digest is not rank 0's.
        """
        mine = stage(np.frombuffer(digest, np.int64).copy(), device)
        self._coming = start_fetch(collectives.all_gather(mine))
        self._difference = difference

    def check(self) -> None:
        """Wait for the ranks' digests.

        Raises:
            RanksDisagree: Some differ from rank 0's.
        """
        self._coming.wait()
        everyone = self._coming.host
        differs = [r for r in range(len(everyone)) if not torch.equal(everyone[r], everyone[0])]
        if differs:
            raise RanksDisagree(f"ranks {differs} {self._difference}")
