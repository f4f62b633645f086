"""The fused decode step in plain torch on a CPU: the same static buffers, the same rules.

It stands where ``FastDecoder`` stands, so bursts, their bookkeeping and what each rank decides can
be proven without a GPU. Kernels are compared with the general step on a GPU in ``tests/gpu``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from actors.engine.batch import Batch
from actors.engine.engine import Engine
from actors.engine.fast_state import MAX_RAW_BURST, OVERRUN, DecodeState, Features, reach_of
from actors.engine.homes import Staging
from actors.engine.sampler import gumbel_noise
from actors.engine.steer import OPERATORS
from actors.shares import deal


class ReferenceDecoder:
    def __init__(self, engine: Engine, max_rows: int = 64) -> None:
        self.engine = engine
        self.cache = engine.cache
        self.sizes = [max_rows]
        self.prepared: list[tuple[int, Features]] = []
        self._rows: dict[Features, Tensor] = {}
        self._staging: dict[Features, Staging] = {}
        self.num_steps = 0
        self.state = DecodeState(
            num_layers=engine.info.num_layers,
            max_rows=max_rows,
            max_pages=-(-(engine.limits.max_tokens + OVERRUN) // engine.cache.page_size) + 1,
            width=engine.info.hidden_size,
            device=engine.device,
        )

    def held(self, features: Features) -> tuple[int, ...]:
        own = self.engine.collectives
        if features.shared:
            return deal(features.keeps, own.rank, own.world_size)
        return features.keeps if own.rank == 0 else ()

    def kept(self, features: Features) -> Tensor | None:
        held = len(self.held(features))
        if not held:
            return None
        shape = (MAX_RAW_BURST, held, self.sizes[-1], self.engine.info.hidden_size)
        return self._rows.setdefault(features, torch.full(shape, float("nan")))

    def staging(self, features: Features) -> Staging:
        kept = self.kept(features)
        assert kept is not None
        return self._staging.setdefault(features, Staging(kept.numel(), kept.dtype, kept.device))

    def is_ready(self, rows: int, features: Features) -> bool:
        return (self.size_for(rows), features) in self.prepared

    def prepare(self, rows: int, features: Features) -> None:
        self.prepared.append((self.size_for(rows), features))
        self.state.clear()

    def size_for(self, rows: int) -> int:
        return min(-(-rows // 4) * 4, self.sizes[-1])  # some rows are idle

    def wants(self, site: str) -> bool:
        return False

    def changes(self, site: str, layer: int) -> bool:
        return False

    def visit(self, site: str, layer: int, value_ND: Tensor) -> None:
        if site != "resid_post":
            return
        state = self.state
        for row in range(len(value_ND)):
            slot = int(state.steer_slots[layer, row])
            if self._steers and slot:
                h, c = value_ND[row].double(), float(state.steer_coefficients[layer, row])
                v, u = state.bank[slot].double(), state.units[slot].double()
                operator = OPERATORS[int(state.steer_kinds[layer, row])]
                along = float(h @ u)
                value_ND[row] = {
                    "add": h + c * v,
                    "add_norm_matched": h + c * h.norm() * v,
                    "ablate": h - c * along * u,
                    "floor": h + max(c - along, 0.0) * u,
                    "ceiling": h + min(c - along, 0.0) * u,
                }[operator].float()
            position = int(state.positions[row])
            inside = state.read_first[row] <= position < state.read_stop[row]
            if self._captures and inside and state.live[row] > 0:
                state.totals[layer, int(state.row_slots[row])] += value_ND[row]
        kept, held = self.kept(self._features), self.held(self._features)
        if kept is not None and layer in held:
            kept[int(state.step) % MAX_RAW_BURST, held.index(layer), : len(value_ND)] = value_ND

    @torch.inference_mode()
    def run(self, rows: int, features: Features) -> None:
        self._steers, self._captures, self._features = features[0], features[1], features
        assert self.is_ready(rows, features), "a burst runs on a graph that was prepared"
        self.num_steps += 1
        rows = self.size_for(rows)
        state, engine = self.state, self.engine
        positions = state.positions[:rows].long()
        longest = int((positions * (state.live[:rows] > 0)).max()) + 1
        assert features.reach >= reach_of(longest), "the graph reaches every running row's context"
        size = self.cache.page_size
        at = torch.arange(int(positions.max()) + 1)
        context = state.pages[:rows, at // size].long() * size + at % size
        none = torch.zeros(0, dtype=torch.int64)
        batch = Batch(
            spans=(),
            ids_N=state.tokens[:rows].clone(),
            positions_N=positions,
            slots_N=context.gather(1, positions[:, None])[:, 0],
            num_decode=rows,
            context_slots=context,
            context_lengths=positions + 1,
            segments=(),
            segment_slots=none,
            query_bounds=none,
            key_bounds=none,
            sample_rows=torch.arange(rows),
            sampling=(),
        )
        logits = engine.forward.local_logits(engine.forward.run(batch, self))
        gathered = engine.collectives.all_gather(logits)
        whole = torch.cat(list(gathered), dim=-1)[:, : engine.info.vocab_size]
        heat = state.temperatures[:rows, None]
        noise = gumbel_noise(state.keys[:rows], positions + 1, torch.arange(whole.shape[1]))
        chosen = torch.where(heat > 0, whole / heat.clamp_min(1e-9) + noise, whole).argmax(-1)
        self._move(chosen)

    def take(self, token_ids: Tensor) -> None:
        self.state.step.zero_()
        self._move(token_ids)

    def _move(self, chosen: Tensor) -> None:
        state, rows = self.state, len(chosen)
        state.history[int(state.step), :rows] = chosen.int()
        state.tokens[:rows] = chosen.clamp_min(0)
        state.positions[:rows] += 1
        state.left[:rows] -= 1
        ends = (chosen[:, None] == state.eos[:rows]).any(-1) | (state.left[:rows] <= 0)
        ends |= chosen < 0
        live = state.live[:rows]
        running = torch.where(ends, 1, 2)
        state.live[:rows] = torch.where(live == 2, running, (live - 1).clamp_min(0)).int()
        state.step += 1
