"""Every steered answer says what was really added: the receipt's vector, rows and length.

A coefficient is a length in the residual stream along a unit direction; a trait of sign -1 is
steered against its direction, so that a positive coefficient lowers it. Beside the trait's
direction run its negative and a random direction of the same length, on the same questions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from actors.request import Operator, Request, Result, Sampling, Site, Steering
from conf.schema import TraitConfig
from conf.stages import SteeringConfig
from jobs.stages import BASELINE
from jobs.task import Json
from jobs.work import Ask, Context, GroupWork, Tables, Vectors
from storage.schema import from_rows

SIGNED_OPERATORS: tuple[Operator, ...] = ("add", "add_norm_matched")
"""Those whose coefficient is a way along the direction; the others' is a fraction or a bound."""


def sign_question(trait: TraitConfig) -> dict[str, Json]:
    """The trait's sign where it is not 1, for what depends on it."""
    return {} if trait.sign == 1 else {"sign": trait.sign}


def question(trait: TraitConfig, settings: SteeringConfig, *, seed: int) -> dict[str, Json]:
    """What decides the answers of this trait, apart from model and vector."""
    return {
        "trait": trait.name,
        "questions": list(trait.questions),
        "samples": settings.samples,
        "max_new_tokens": settings.max_new_tokens,
        "temperature": settings.temperature,
        "seed": seed,
    }


def random_direction(size: int, *, seed: int, trait: str, layer: int) -> NDArray[np.float32]:
    """A unit vector that depends on these names alone, drawn evenly over all directions."""
    name = f"{seed}/{trait}/{layer}".encode()
    generator = np.random.default_rng(int.from_bytes(hashlib.sha256(name).digest()[:8], "little"))
    drawn_D = generator.standard_normal(size)
    return np.asarray(drawn_D / np.linalg.norm(drawn_D), dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class AnswersWork(GroupWork):
    """The trait's questions, answered without steering: the baseline."""

    trait: TraitConfig
    settings: SteeringConfig
    site: Site
    seed: int

    @property
    def kinds(self) -> tuple[str, ...]:
        """What is done to the answers, in order."""
        return (BASELINE,)

    @property
    def num_requests(self) -> int:
        """Kinds times questions times samples."""
        return len(self.kinds) * len(self.trait.questions) * self.settings.samples

    def steering(self, context: Context, kind: str) -> tuple[Steering, ...]:
        """What is added for one kind."""
        del context, kind
        return ()

    def vectors(self, context: Context) -> Vectors:
        """Directions by key."""
        del context
        return {}

    def cell(self, context: Context, kind: str) -> dict[str, object]:
        """Columns that all answers of one kind share."""
        del context
        return {
            "layer": None,
            "method": None,
            "coefficient": 0.0,
            "coefficient_unit": "none",
            "applied_coefficient": 0.0,
            "vector_kind": kind,
            "operator": self.settings.operator,
            "positions": self.settings.positions,
        }

    def ask(self, context: Context) -> Ask:
        """Every question under every kind."""
        sampling = Sampling(
            temperature=self.settings.temperature,
            seed=self.seed,
            max_new_tokens=self.settings.max_new_tokens,
        )
        requests: list[Request] = []
        for kind in self.kinds:
            steering = self.steering(context, kind)
            for number, text in enumerate(self.trait.questions):
                ids = context.encoder.chat(text)
                requests.extend(
                    Request(
                        id=f"{self.task.id}:{kind}:{number}:{sample}",
                        token_ids=ids,
                        sampling=sampling,
                        steering=steering,
                    )
                    for sample in range(self.settings.samples)
                )
        return Ask(tuple(requests), self.vectors(context))

    def answer(self, context: Context, results: Sequence[Result]) -> Tables:
        """One row for each answer, with its receipt."""
        cells = {kind: self.cell(context, kind) for kind in self.kinds}
        rows: list[dict[str, object]] = []
        per_kind = len(self.trait.questions) * self.settings.samples
        for index, result in enumerate(results):
            kind = self.kinds[index // per_kind]
            number, sample = divmod(index % per_kind, self.settings.samples)
            receipt = result.receipts[0] if result.receipts else None
            rows.append(
                {
                    "trait": self.trait.name,
                    "site": self.site,
                    **cells[kind],
                    "question": number,
                    "sample": sample,
                    "prompt": context.encoder.full_text(result.prompt_ids),
                    "completion": context.encoder.text(result.completion_ids),
                    "prompt_ids": list(result.prompt_ids),
                    "completion_ids": list(result.completion_ids),
                    "finish_reason": result.finish_reason,
                    "num_rows_steered": receipt.num_rows if receipt else 0,
                    "vector_sha256": receipt.vector_sha256 if receipt else None,
                    "seed": self.seed,
                }
            )
        return {"steering": from_rows("steering", rows)}


@dataclass(frozen=True, kw_only=True)
class SteeredWork(AnswersWork):
    """The trait's questions, answered under one direction at one layer and coefficient."""

    layer: int
    method: str
    coefficient: float
    unit: str
    """``residual_norm``: the coefficient multiplies the layer's mean residual norm. ``length``:
    it is the length itself. ``row_norm`` and ``fraction`` belong to the other operators."""
    vector_task: str
    """Task that fitted the direction; among ``after``."""
    operator: Operator

    @property
    def kinds(self) -> tuple[str, ...]:
        """The trait's direction and its controls."""
        return ("trait", *self.settings.controls)

    def steering(self, context: Context, kind: str) -> tuple[Steering, ...]:
        """One entry; the negated kind has the opposite sign and no vector of its own."""
        return (
            Steering(
                layer=self.layer,
                site=self.site,
                vector=self._key(kind),
                coefficient=self._applied(context, kind),
                operator=self.operator,
                positions=self.settings.positions,
            ),
        )

    def vectors(self, context: Context) -> Vectors:
        """The fitted direction, and the random one when it is asked for."""
        direction_D, _ = self._fitted(context)
        found = {self._key("trait"): direction_D}
        if "random" in self.kinds:
            found[self._key("random")] = random_direction(
                len(direction_D), seed=self.seed, trait=self.trait.name, layer=self.layer
            )
        return found

    def cell(self, context: Context, kind: str) -> dict[str, object]:
        """Coefficient as asked for, and the length that it came to."""
        return {
            "layer": self.layer,
            "method": self.method,
            "coefficient": self.coefficient,
            "coefficient_unit": self.unit,
            "applied_coefficient": self._applied(context, kind),
            "vector_kind": kind,
            "operator": self.operator,
            "positions": self.settings.positions,
        }

    def _key(self, kind: str) -> str:
        name = "random" if kind == "random" else "trait"
        return f"{self.vector_task}:{name}"

    def _applied(self, context: Context, kind: str) -> float:
        _, residual_norm = self._fitted(context)
        scale = residual_norm if self.unit == "residual_norm" else 1.0
        scale *= self.trait.sign if self.operator in SIGNED_OPERATORS else 1
        return (-1.0 if kind == "negated" else 1.0) * self.coefficient * scale

    def _fitted(self, context: Context) -> tuple[NDArray[np.float32], float]:
        row = context.rows("vectors", (self.vector_task,)).to_pylist()[0]
        return np.asarray(row["direction"], dtype=np.float32), float(row["mean_residual_norm"])
