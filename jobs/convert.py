"""Vectors of a run become files of other tools, and back; ``.pt`` is touched here alone.

``python -m jobs.convert list RUN --trait anxiety --min-auroc 0.9``
``python -m jobs.convert export RUN OUT --format gguf --trait anxiety --method mean_difference``
``python -m jobs.convert import FILE OUT.safetensors --format persona_vectors``
``python -m jobs.convert delta RUN vetting OUT``

Files of pickled tensors are read with ``weights_only=True``: they can hold tensors and nothing that
runs.
"""

from __future__ import annotations

import argparse
import json
import pickle
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file

from conf.errors import UserError
from jobs.report.console import Console
from storage import exports
from storage.delta import export_delta
from storage.errors import StorageError
from storage.layout import COMMITS, check_name
from storage.manifest import Run
from storage.vectors import TraitVector, find

UNREADABLE = (
    OSError,
    ValueError,
    LookupError,
    AssertionError,
    TypeError,
    AttributeError,
    EOFError,
    RuntimeError,
    pickle.UnpicklingError,
    struct.error,
    pa.ArrowException,
)
"""What readers raise on a file that is missing, damaged or of another kind."""

FORMATS = ("safetensors", "gguf", "easysteer", "vllm_lens", "persona_vectors", "trait_interp")
Directions = dict[int, NDArray[np.float32]]


def write_persona_vectors(directions: Directions, path: Path, *, num_layers: int) -> None:
    """persona_vectors' ``<trait>_response_avg_diff.pt``: one float tensor ``[layers + 1, width]``.

    Its row n is ``hidden_states[n]``, so row 0 is the embedding and the output of layer i is row
    i + 1. Layers that were not fitted are zero.
    """
    width = len(next(iter(directions.values())))
    if max(directions) >= num_layers:
        raise UserError(f"layer {max(directions)} needs more than --num-layers={num_layers} rows.")
    rows = torch.zeros(num_layers + 1, width)
    for layer, direction in directions.items():
        rows[layer + 1] = torch.from_numpy(direction)
    torch.save(rows, path)


def read_persona_vectors(path: Path) -> Directions:
    """Layer -> vector, without the embedding row and rows that are all zero."""
    rows = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(rows, torch.Tensor) or rows.ndim != 2:
        raise UserError(f"{path} does not hold one tensor [layers + 1, width].")
    found = rows.float().numpy()[1:]
    return {layer: row for layer, row in enumerate(found) if np.any(row)}


def write_trait_interp(vectors: Sequence[TraitVector], folder: Path) -> None:
    """trait-interp: ``<position>/<component>/<method>/layer<L>.pt`` beside a metadata.json.

    That is its ``vectors/`` folder of one trait of one model.

    Raises:
        UserError: The vectors are of several traits or models, or of another site.
        UnsafeNameError: A token selector or method cannot be a folder.
    """
    named = {(vector.model, vector.trait) for vector in vectors}
    if len(named) > 1:
        raise UserError(f"trait-interp has a folder for each trait, here are {sorted(named)}.")
    for vector in vectors:
        if vector.site != "resid_post":
            raise UserError(f"trait-interp stores residual vectors only, not site {vector.site}.")
        method = {"mean_difference": "mean_diff"}.get(vector.method, vector.method)
        position = check_name("position", _position_folder(vector.tokens))
        place = folder / position / "residual" / check_name("method", method)
        place.mkdir(parents=True, exist_ok=True)
        torch.save(torch.from_numpy(vector.direction.copy()), place / f"layer{vector.layer}.pt")
        _add_facts(place / "metadata.json", vector, method)


def _position_folder(tokens: str) -> str:
    """``response[:5]`` is ``response__5`` there, and ``response[:]`` is ``response_all``."""
    whole = tokens.replace("[:]", "_all")
    return whole.replace("[", "_").replace("]", "").replace(":", "_")


def _add_facts(path: Path, vector: TraitVector, method: str) -> None:
    facts = json.loads(path.read_text()) if path.exists() else {"layers": {}}
    facts |= {
        "model": vector.model,
        "trait": vector.trait,
        "method": method,
        "component": "residual",
        "position": vector.tokens,
    }
    known = {"norm": vector.norm} | {name: vector.facts[name] for name in ("baseline", "bias")}
    # Its reader takes 0 for a baseline that is not there, and cannot compute with a null.
    facts["layers"][str(vector.layer)] = {k: v for k, v in known.items() if v is not None}
    path.write_text(json.dumps(facts, indent=1, sort_keys=True))


def read_trait_interp(folder: Path) -> Directions:
    """Layer -> unit vector of one ``<position>/<component>/<method>`` folder."""
    found: Directions = {}
    for path in sorted(folder.glob("layer*.pt")):
        row = torch.load(path, map_location="cpu", weights_only=True)
        found[int(path.stem.removeprefix("layer"))] = row.float().numpy()
    if not found:
        raise UserError(f"{folder} has no layer<L>.pt files: give the folder of one method.")
    return found


def chosen(arguments: argparse.Namespace) -> list[TraitVector]:
    """Vectors of a run that fit the options, best score first.

    Raises:
        UserError: There is no such run, or no vector that fits.
    """
    with open_run(arguments.run) as run:
        found = find(
            run,
            trait=arguments.trait,
            model=arguments.model,
            layer=arguments.layer or None,
            site=arguments.site,
            method=arguments.method,
            tokens=arguments.tokens,
            min_auroc=arguments.min_auroc,
        )
    if not found:
        raise UserError(f"{arguments.run} has no vector that fits: see its data/vectors folder.")
    return found


def open_run(folder: Path) -> Run:
    """A run that is there; a wrong path makes no new folder.

    Raises:
        UserError: It is no run folder.
    """
    if not (folder / COMMITS).is_dir():
        raise UserError(f"{folder} is no run folder: give one with {COMMITS}.")
    return Run.open(folder)


def list_(arguments: argparse.Namespace, console: Console) -> None:
    """Print the vectors that fit, a line each."""
    for each in chosen(arguments):
        score = "not evaluated" if each.auroc is None else f"auroc {each.auroc:.4f}"
        place = f"layer {each.layer} {each.site} {each.method} {each.tokens}"
        console.note(f"{each.trait}  {each.model}  {place}  {score}  sha256 {each.sha256[:12]}")


def export(arguments: argparse.Namespace, console: Console) -> None:
    """Write the chosen vectors of a run."""
    vectors = chosen(arguments)
    out, kind, scale = arguments.out, arguments.format, arguments.scale
    if kind == "safetensors":
        exports.write_safetensors(vectors, out)
    elif kind == "trait_interp":
        write_trait_interp(vectors, out)
    else:
        directions = exports.by_layer(vectors, scale=scale)
        _write_by_layer(kind, directions, out, arguments, vectors[0].method)
    console.note(f"wrote {len(vectors)} vectors to {out} ({kind})")


def _write_by_layer(
    kind: str, directions: Directions, out: Path, arguments: argparse.Namespace, method: str
) -> None:
    """The formats that hold one direction a layer."""
    if kind == "gguf":
        exports.write_gguf(directions, out, model_hint=arguments.model_hint)
    elif kind == "easysteer":
        exports.write_gguf(
            directions, out, model_hint=arguments.model_hint, method=method, allow_layer_0=True
        )
    elif kind == "vllm_lens":
        exports.write_vllm_lens(directions, out)
    else:
        write_persona_vectors(directions, out, num_layers=arguments.num_layers)


def import_(arguments: argparse.Namespace, console: Console) -> None:
    """Turn another tool's vectors into safetensors, one tensor a layer."""
    readers = {
        "gguf": exports.read_gguf,
        "easysteer": exports.read_gguf,
        "vllm_lens": exports.read_vllm_lens,
        "persona_vectors": read_persona_vectors,
        "trait_interp": read_trait_interp,
    }
    if arguments.format not in readers:
        raise UserError(f"--format={arguments.format} is imported as it is; no conversion needed.")
    try:
        directions = readers[arguments.format](arguments.source)
    except UNREADABLE as error:
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        wanted = f"{arguments.source} cannot be read as {arguments.format}"
        raise UserError(f"{wanted} ({why}).") from error
    save_file(
        {f"layer.{layer}": np.ascontiguousarray(row) for layer, row in directions.items()},
        arguments.out,
    )
    console.note(f"wrote {len(directions)} layers to {arguments.out}")


def delta(arguments: argparse.Namespace, console: Console) -> None:
    """Write a Delta log over the committed files of one table."""
    with open_run(arguments.run) as run:
        num_files = export_delta(run, arguments.table, arguments.out)
    console.note(f"wrote a Delta table of {num_files} files to {arguments.out}")


def _query() -> argparse.ArgumentParser:
    """The run, and which of its vectors."""
    asked = argparse.ArgumentParser(add_help=False)
    asked.add_argument("run", type=Path)
    for name in ("trait", "model", "site", "method"):
        asked.add_argument(f"--{name}")
    asked.add_argument("--tokens", help="position: the token selector, such as response[:5]")
    asked.add_argument("--layer", type=int, nargs="*")
    asked.add_argument("--min-auroc", type=float, help="score; leaves out what was not evaluated")
    return asked


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="traitmill convert", description=__doc__)
    verbs = top.add_subparsers(dest="verb", required=True)
    asked = _query()
    seen = verbs.add_parser("list", parents=[asked], help="vectors of a run, best score first")
    seen.set_defaults(work=list_)
    out = verbs.add_parser("export", parents=[asked], help="vectors of a run, for another tool")
    out.add_argument("out", type=Path)
    out.add_argument("--format", choices=FORMATS, required=True)
    out.add_argument("--scale", type=float, help="length; by default that before normalising")
    out.add_argument("--model-hint", default="", help="GGUF: model type as in its config")
    out.add_argument("--num-layers", type=int, default=0, help="persona_vectors: of the model")
    out.set_defaults(work=export)
    back = verbs.add_parser("import", help="another tool's vectors, as safetensors")
    back.add_argument("source", type=Path)
    back.add_argument("out", type=Path)
    back.add_argument("--format", choices=FORMATS, required=True)
    back.set_defaults(work=import_)
    log = verbs.add_parser("delta", help="a Delta log over the files of one table")
    log.add_argument("run", type=Path)
    log.add_argument("table")
    log.add_argument("out", type=Path)
    log.set_defaults(work=delta)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one conversion; 2 when it was refused, with the reason in one sentence."""
    console = Console()
    arguments = parser().parse_args(argv)
    try:
        arguments.work(arguments, console)
    except (UserError, StorageError) as error:
        console.refuse(error.message)
        return 2
    except OSError as error:
        console.refuse(f"{arguments.out}: {error.strerror or error}.")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
