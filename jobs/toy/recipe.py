"""How long and on what a toy model is trained, as a dataclass and as a command line."""

from __future__ import annotations

import argparse
import math
import os
from dataclasses import dataclass, fields
from pathlib import Path

import torch

from jobs.toy.architecture import MODELS


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How long and on what a model is trained."""

    model: str
    start: Path | None = None
    """A checkpoint of the same model to go on from; otherwise fresh weights."""
    num_steps: int = 6000
    batch_size: int = 256
    num_documents: int = 240_000
    sequence_length: int = 144
    """Longer documents are cut; 99 % are shorter."""
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    max_seconds: float = math.inf
    """End by this time, corpus included, even if steps are left; such a run is not repeatable."""
    noise: float = 0.4
    """Largest random push on the residual stream, as a share of a row's norm; 0 turns it off."""
    typos: float = 0.01
    """Share of input tokens swapped for random ones, so that no single word decides a story."""
    cue_typos: float = 0.03
    """The same before the words that a cue decides, where reading must not hang on one word."""
    readout: float = 0.3
    """Weight of the loss that reads trait and polarity from the middle of the residual stream."""
    processes: int = 1
    """How many write the corpus; it is the same for any number."""
    graph: bool = False
    """Replay steps as CUDA graphs; needs a GPU."""
    seed: int = 1


def parse_recipe(
    description: str | None, words: list[str] | None = None
) -> tuple[Recipe, Path, str]:
    """Read a command line.

    Args:
        description: What ``--help`` says first.
        words: The command line; otherwise this process's own.

    Returns:
        The recipe, the folder to write and the device.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--model", choices=MODELS, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start", type=Path, help="a checkpoint to go on from")
    default = Recipe(model="", processes=os.cpu_count() or 1)
    names = {"num_steps": "--steps", "num_documents": "--documents"}
    for field in fields(Recipe):
        value = getattr(default, field.name)
        flag = names.get(field.name, "--" + field.name.replace("_", "-"))
        if type(value) in (int, float):
            parser.add_argument(flag, dest=field.name, type=type(value), default=value)
    parser.add_argument("--graph", action="store_true", help="replay steps as CUDA graphs")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = vars(parser.parse_args(words))
    return (
        Recipe(**{field.name: args[field.name] for field in fields(Recipe)}),
        args["out"],
        args["device"],
    )
