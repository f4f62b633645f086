"""A small finished run with a known answer, and one whose every text tries to break the page."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from storage.manifest import Run
from storage.schema import from_rows

HOSTILE = (
    "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
    "</script><!--\u2028\u202egnirts\u202c\x07\x00{{figures}}&lt;\x9b"
)
START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DIGEST = "ab" * 32
LAYERS = (0, 1, 2)
COEFFICIENTS = (0.5, 1.0)
NUM_QUESTIONS = 6
PROVENANCE = {
    "model_digest": DIGEST,
    "device": "cpu",
    "dtype": "float32",
    "tensor_parallel_size": 2,
    "versions": {"numpy": "2.0", "torch": "2.13"},
    "question": {"seed": 17, "gate": 70.0, "judge": "lexicon v1"},
}


def build(
    root: Path, *, trait: str = "anxiety", said: str = "I am afraid.", falls: bool = False
) -> Run:
    """Commit every table that the report reads.

    The trait vector raises the score by 20 points a layer and 40 times the coefficient; the best
    coherent cell is layer 2 at 1.0, because layer 1 at 1.0 is incoherent. With ``falls`` the trait
    has sign -1 and all its scores are mirrored at 50: what rose falls.
    """
    run = Run.open(root)
    provenance = dict(PROVENANCE)
    scored, cells = judgements(trait), summary(trait)
    if falls:
        provenance["question"] = {**PROVENANCE["question"], "sign": -1}  # type: ignore[dict-item]
        for row in scored:
            row["score"] = 100 - row["score"] if row["kind"] == "trait" else row["score"]
        for row in cells:
            for name, whole in (("trait_mean", 100), ("baseline_mean", 100), ("delta", 0)):
                row[name] = whole - row[name]

    def commit(task: str, **tables: list[dict[str, object]]) -> None:
        ready = {name: from_rows(name, rows) for name, rows in tables.items()}
        run.commit(task, ready, model="toy", provenance=provenance)

    commit("vetting-" + "0" * 24, vetting=_vetting(trait))
    commit("fit-" + "1" * 24, vectors=_vectors(trait), evaluation=evaluation(trait))
    commit(
        "steering-" + "2" * 24,
        steering=steering(trait, said),
        judgements=scored,
        steering_summary=cells,
    )
    commit("projection-" + "3" * 24, projections=projections(trait, said))
    commit("run-" + "4" * 12, runs=[command(said)], attempts=[])
    return run


def command(said: str) -> dict[str, object]:
    return {
        "invocation": "4" * 12,
        "command": f"python -m jobs.pipeline {said}",
        "started_at": START,
        "finished_at": START.replace(minute=6),
        "exit_code": 0,
        "num_tasks": 4,
        "num_tasks_done_before": 1,
        "versions": '{"torch": "2.13"}',
        "host": said,
    }


def _vetting(trait: str) -> list[dict[str, object]]:
    common = {"trait": trait, "sample": 0, "judge": "lexicon", "judge_version": "v1"}
    rows: list[dict[str, object]] = [
        {"polarity": p, "scenario": i, "score": s, "reason": None, "passed": True, **common}
        for i in range(3)
        for p, s in (("positive", 80.0), ("negative", 5.0))
    ]
    refused = {"score": None, "reason": "timed out", "passed": False}
    return [*rows, {"polarity": "positive", "scenario": 3, **refused, **common}]


def _vectors(trait: str) -> list[dict[str, object]]:
    generator = np.random.default_rng(0)
    rows: list[dict[str, object]] = []
    for layer in LAYERS:
        direction = generator.standard_normal(8)
        rows.append(
            {
                "trait": trait,
                "layer": layer,
                "site": "resid_post",
                "method": "mean_difference",
                "tokens": "response[:5]",
                "direction": (direction / np.linalg.norm(direction)).tolist(),
                "norm": 3.0,
                "bias": None,
                "mean_residual_norm": 10.0,
                "baseline": 0.5,
                "n_positive": 3,
                "n_negative": 3,
                "model_digest": DIGEST,
                "dataset_digest": "cd" * 32,
                "sha256": "ef" * 32,
            }
        )
    return rows


def evaluation(trait: str) -> list[dict[str, object]]:
    return [
        {
            "trait": trait,
            "layer": layer,
            "site": "resid_post",
            "method": "mean_difference",
            "tokens": "response[:5]",
            "auroc": auroc,
            "cohens_d": None if layer == 0 else 2.0,
            "accuracy": 0.9,
            "ci_low": auroc - 0.1,
            "ci_high": min(1.0, auroc + 0.1),
            "n_positive": 3,
            "n_negative": 3,
            "polarity_correct": True,
            "folds": 0,
            "random_auroc": 0.52,
        }
        for layer, auroc in zip(LAYERS, (0.6, 0.9, 0.95), strict=True)
    ]


def _scores(layer: int, coefficient: float, kind: str) -> tuple[float, float]:
    """Trait score and coherence of a cell's answers, before the spread between questions."""
    lift = {"trait": 1.0, "negated": -0.2, "random": 0.0}[kind]
    coherence = 40.0 if (layer, coefficient) == (1, 1.0) else 90.0
    return 20.0 + lift * (10.0 * layer + 40.0 * coefficient), coherence


def _cells() -> list[tuple[int, float, str]]:
    kinds = ("trait", "negated", "random")
    return [(la, c, kind) for la in LAYERS for c in COEFFICIENTS for kind in kinds]


def steering(trait: str, said: str) -> list[dict[str, object]]:
    common = {
        "trait": trait,
        "site": "resid_post",
        "operator": "add",
        "positions": "all",
        "sample": 0,
        "prompt": f"How are you? {said}",
        "prompt_ids": [1, 2],
        "completion_ids": [3],
        "finish_reason": "eos",
        "seed": 17,
    }
    rows: list[dict[str, object]] = []
    for question in range(NUM_QUESTIONS):
        plain = {"layer": None, "method": None, "coefficient": 0.0, "vector_kind": "baseline"}
        plain |= {"coefficient_unit": "none", "applied_coefficient": 0.0}
        plain |= {"num_rows_steered": 0, "vector_sha256": None}
        rows.append(
            {**common, **plain, "question": question, "completion": f"Calm {question}. {said}"}
        )
        for layer, coefficient, kind in _cells():
            steered = {"layer": layer, "method": "mean_difference", "coefficient": coefficient}
            steered |= {"coefficient_unit": "residual_norm", "vector_kind": kind}
            steered |= {"applied_coefficient": coefficient * 10, "num_rows_steered": 3}
            words = f"{kind} {layer} {coefficient} {question}. {said}"
            rows.append(
                {**common, **steered, "question": question, "completion": words}
                | {"vector_sha256": "ef" * 32}
            )
    return rows


def judgements(trait: str) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    common = {"table": "steering", "trait": trait, "sample": 0, "reason": None}
    common |= {"judge": "lexicon", "judge_version": "v1"}
    for question in range(NUM_QUESTIONS):
        plain = {"coefficient": 0.0, "vector_kind": "baseline", "question": question}
        rows += [
            {**common, **plain, "kind": kind, "score": score}
            for kind, score in (("trait", 20.0 + question), ("coherence", 95.0))
        ]
        for layer, coefficient, vector in _cells():
            trait_score, coherence = _scores(layer, coefficient, vector)
            place = {"layer": layer, "method": "mean_difference", "coefficient": coefficient}
            place |= {"vector_kind": vector, "question": question}
            both = (("trait", trait_score + 2 * question), ("coherence", coherence))
            rows += [{**common, **place, "kind": kind, "score": score} for kind, score in both]
    return rows


def summary(trait: str) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for layer, coefficient, kind in _cells():
        score, coherence = _scores(layer, coefficient, kind)
        # Question q adds 2 q to steered and q to unsteered scores: means 5 and 2.5.
        delta, error = score + 5.0 - 22.5, 0.76
        rows.append(
            {
                "trait": trait,
                "layer": layer,
                "site": "resid_post",
                "method": "mean_difference",
                "coefficient": coefficient,
                "coefficient_unit": "residual_norm",
                "applied_coefficient": coefficient * 10,
                "vector_kind": kind,
                "trait_mean": score + 5.0,
                "trait_se": 1.53,
                "coherence_mean": coherence,
                "n": NUM_QUESTIONS,
                "baseline_mean": 22.5,
                "baseline_se": 0.76,
                "delta": delta,
                "delta_se": error,
                "z": delta / error,
            }
        )
    return rows


def projections(trait: str, said: str) -> list[dict[str, object]]:
    return [
        {
            "prompts": "everyday",
            "prompt_id": f"p{prompt}",
            "trait": trait,
            "layer": layer,
            "site": "resid_post",
            "method": "mean_difference",
            "position": position,
            "token_id": position + 5,
            "token": f" t{position}{said if position == 2 else ''}",
            "is_response": position >= 3,
            "projection": float(position - 2),
            "cosine": None if position == 0 else (position - 2) / 10,
            "row_norm": 10.0,
        }
        for prompt in range(8)
        for layer in (1, 2)
        for position in range(6)
    ]
