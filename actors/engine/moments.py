"""Class moments are merged exactly (Chan et al. 1979), so no activation has to be stored.

Count, mean and sum of squared deviations are float64. A row that is not finite is left out and
reported, or it would poison its whole class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from actors.request import ClassMoments, Site


@dataclass(slots=True)
class _Running:
    count: Tensor
    """int64, on the device: adding waits for nothing."""
    mean: Tensor
    m2: Tensor


class MomentStore:
    """Running moments by (key, layer, site)."""

    def __init__(self) -> None:
        self._running: dict[tuple[str, int, str], _Running] = {}

    def add(self, key: str, layer: int, site: str, rows_ND: Tensor) -> Tensor:
        """Merge rows into a class.

        Returns:
            bool ``[N]``: rows that are finite; the others were left out.
        """
        rows = rows_ND.double()
        finite = rows.isfinite().all(dim=-1)
        kept = finite[:, None]
        count = finite.sum()
        mean = torch.where(kept, rows, 0.0).sum(dim=0) / count.clamp_min(1)
        m2 = torch.where(kept, (rows - mean) ** 2, 0.0).sum(dim=0)
        self._merge((key, layer, site), _Running(count, mean, m2))
        return finite

    def _merge(self, place: tuple[str, int, str], new: _Running) -> None:
        old = self._running.get(place)
        if old is None:
            self._running[place] = new
            return
        total = old.count + new.count
        share = new.count / total.clamp_min(1).double()
        delta = new.mean - old.mean
        old.m2 += new.m2 + delta**2 * (old.count * share)
        old.mean += delta * share
        old.count = total

    def export(self) -> tuple[ClassMoments, ...]:
        """All classes that have a row, by key, layer and site."""
        return tuple(
            ClassMoments(
                key=key,
                layer=layer,
                site=cast(Site, site),
                count=int(r.count),
                mean=r.mean.cpu().numpy(),
                m2=r.m2.cpu().numpy(),
            )
            for (key, layer, site), r in sorted(self._running.items())
            if int(r.count)
        )
