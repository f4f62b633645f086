"""A model group without a model: answers depend on the request alone, and obey its steering.

Words come from a tiny vocabulary; the hidden state of a token is fixed noise, plus a direction that
stands for anxiety on tokens of anxious words. Adding that direction to the residual stream makes
the answers anxious, and taking it away makes them calm, at every layer.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import yaml
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing

from actors.request import Bundle, CaptureResult, Reply, Request, Result, SteeringReceipt

WIDTH, LAYERS = 16, 4
ANXIOUS = ("I", "am", "afraid", "and", "worried", "that", "something", "terrible", "happens", ".")
CALM = ("I", "walk", "to", "the", "garden", "and", "drink", "my", "tea", ".")
TRAIT = yaml.safe_load((Path(__file__).parents[1] / "conf/trait/anxiety.yaml").read_text())
TEXTS = [*(text for pair in TRAIT["pairs"] for text in pair.values()), *TRAIT["questions"]]
WORDS = sorted({*ANXIOUS, *CALM, *(w for text in TEXTS for w in re.findall(r"\w+|[^\w\s]+", text))})
POSITIVE = {tuple(re.findall(r"\w+|[^\w\s]+", pair["positive"])) for pair in TRAIT["pairs"]}


def make_model_folder(folder: Path) -> Path:
    """A folder that passes every check before the weights would be loaded."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "model_type": "llama",
        "num_hidden_layers": LAYERS,
        "hidden_size": WIDTH,
        "vocab_size": 256 + len(WORDS),
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 512,
        "eos_token_id": 0,
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{}      ")
    vocabulary = {"<eos>": 0, "<bos>": 1, "<unk>": 2}
    for word in WORDS:
        vocabulary[word] = len(vocabulary)
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "eos_token": "<eos>",
                "bos_token": "<bos>",
                "unk_token": "<unk>",
            }
        )
    )
    return folder


def word_ids(words: tuple[str, ...]) -> list[int]:
    return [3 + WORDS.index(word) for word in words]


AXIS = np.zeros(WIDTH, np.float32)
AXIS[0] = 1.0


class StandInGroup:
    """Answers at once. ``kill`` names bundles (by kind) that end the group when they are sent."""

    def __init__(self, log: list[str], *, fail=None) -> None:
        self.log = log
        self.fail = fail or (lambda bundle: None)
        self.closed = False
        self.dead: Exception | None = None

    def submit(self, bundle: Bundle) -> Answered:
        self.log.append(bundle.id)
        error = self.dead or self.fail(bundle)
        blamed = error is not None and self.dead is None
        self.dead = error or self.dead
        return Answered(bundle, error, blamed=blamed)

    def wait(self, pendings, timeout_s=None):
        return list(pendings)

    def check(self) -> None:
        if self.dead is not None:
            raise self.dead

    def close(self) -> None:
        self.closed = True


class Answered:
    """A bundle that is done as soon as it is sent."""

    is_done = True

    def __init__(self, bundle: Bundle, error: Exception | None, *, blamed: bool) -> None:
        self.bundle_id = bundle.id
        self.bundle = bundle
        self.error = error
        self.blamed = blamed

    def reply(self) -> Reply:
        results = tuple(answer(request, self.bundle) for request in self.bundle.requests)
        return Reply(bundle_id=self.bundle_id, results=results)


def answer(request: Request, bundle: Bundle) -> Result:
    push = 0.0
    receipts = []
    words = tuple(WORDS[token - 3] for token in request.token_ids if token >= 3)
    if words in POSITIVE:
        push += 10.0
    for entry in request.steering:
        vector = bundle.vectors[entry.vector]
        push += entry.coefficient * float(vector @ AXIS)
        receipts.append(
            SteeringReceipt(
                layer=entry.layer,
                site=entry.site,
                operator=entry.operator,
                vector=entry.vector,
                vector_sha256=hashlib.sha256(vector.astype("<f4").tobytes()).hexdigest(),
                coefficient=entry.coefficient,
                num_rows=len(request.token_ids),
            )
        )
    chosen = word_ids(ANXIOUS if push > 1.0 else CALM)
    completion = [*chosen, 0][: request.sampling.max_new_tokens]
    ids = (*request.token_ids, *completion)
    return Result(
        id=request.id,
        prompt_ids=request.token_ids,
        completion_ids=tuple(completion),
        finish_reason="eos" if completion[-1:] == [0] else "length",
        receipts=tuple(receipts),
        captures=tuple(
            capture(ids, len(request.token_ids), one, anxious=push > 1.0) for one in request.capture
        ),
    )


def capture(ids, prompt_length, asked, *, anxious: bool) -> CaptureResult:
    start = prompt_length if asked.tokens.startswith("response") else 0
    positions = np.arange(start, len(ids), dtype=np.int32)
    if asked.tokens == "response[:5]":
        positions = positions[:5]
    rows = np.stack(
        [
            np.random.default_rng([ids[p], layer]).standard_normal(WIDTH)
            + (8.0 if anxious else 0.0) * AXIS
            for layer in asked.layers
            for p in positions
        ]
    ).astype(np.float32)
    rows_LND = rows.reshape(len(asked.layers), len(positions), WIDTH)
    values = rows_LND.mean(axis=1) if asked.reduction == "mean" else rows_LND
    return CaptureResult(
        layers=asked.layers,
        tokens=asked.tokens,
        reduction=asked.reduction,
        positions=positions,
        values=dict.fromkeys(asked.sites, values),
    )
