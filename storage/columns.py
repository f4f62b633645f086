"""One column is declared once: its type, its meaning, its unit and why it may be null.

The facts become Parquet field metadata, so a file explains itself without this package. A column
without ``null_when`` never holds a null; one with it holds a null for that reason and no other,
and never a zero in its place.
"""

from __future__ import annotations

import pyarrow as pa

VERSION = 1
"""Version of every table, written into each file. Raise it together with a migration."""


def column(
    name: str, type_: pa.DataType, meaning: str, *, unit: str = "", null_when: str = ""
) -> pa.Field:
    """One column whose meaning, unit and reason for nulls travel inside the file."""
    facts = {"meaning": meaning, "unit": unit, "null_when": null_when}
    return pa.field(name, type_, bool(null_when), facts)


def table(name: str, *columns: pa.Field, version: int = VERSION) -> pa.Schema:
    """One table: the partition columns, then its own, with name and version in the metadata."""
    return pa.schema([TASK_ID, MODEL, *columns], {"schema": name, "schema_version": str(version)})


INT16, INT32, INT64 = pa.int16(), pa.int32(), pa.int64()
FLOAT32, FLOAT64, BOOL, STRING = pa.float32(), pa.float64(), pa.bool_(), pa.string()
IDS = pa.list_(pa.int32())
VECTOR = pa.list_(pa.float32())
TIME = pa.timestamp("us", tz="UTC")

TASK_ID = column("task_id", STRING, "task whose commit record names this file")
MODEL = column("model", STRING, "model slug, as in the folder name")
MODEL_DIGEST = column("model_digest", STRING, "sha256 over config and weights, or the random seed")
DATASET_DIGEST = column("dataset_digest", STRING, "sha256 over the trait's pairs and questions")
TRAIT = column("trait", STRING, "trait name, as under conf/trait")
POLARITY = column("polarity", STRING, "positive or negative side of the contrast pair")
SCENARIO = column("scenario", INT32, "index of the contrast pair, 0-based")
SAMPLE = column("sample", INT16, "which of several completions of one prompt, 0-based")
QUESTION = column("question", INT32, "index of the steering question, 0-based")
LAYER = column("layer", INT16, "decoder layer, 0-based")
SITE = column("site", STRING, "place in the layer, such as resid_post")
TOKENS = column("tokens", STRING, "token selector, such as response[:5]")
METHOD = column("method", STRING, "how the direction was found, such as mean_difference")
SEED = column("seed", INT64, "seed of the random draws")
PROMPT = column("prompt", STRING, "decoded prompt, for reading; prompt_ids is the truth")
COMPLETION = column("completion", STRING, "decoded completion; completion_ids is the truth")
PROMPT_IDS = column("prompt_ids", IDS, "token ids the model read", unit="token id")
COMPLETION_IDS = column("completion_ids", IDS, "token ids the model wrote", unit="token id")
FINISH = column("finish_reason", STRING, "eos, stop, length or error")
COEFFICIENT = column("coefficient", FLOAT64, "as asked for; 0 is unsteered")
COEFFICIENT_UNIT = column(
    "coefficient_unit",
    STRING,
    "residual_norm: times the layer's mean residual norm; length; row_norm; fraction; none",
)
APPLIED_COEFFICIENT = column(
    "applied_coefficient", FLOAT64, "length added to each steered row", unit="residual stream"
)
VECTOR_KIND = column("vector_kind", STRING, "trait, negated, random, or baseline when unsteered")
JUDGE = column("judge", STRING, "which judge scored")
JUDGE_VERSION = column("judge_version", STRING, "digest of the judge's model, prompt and rubric")
PROMPTS = column("prompts", STRING, "prompt set, as under conf/prompts")
PROMPT_ID = column("prompt_id", STRING, "prompt within the set")
POSITION = column("position", INT32, "place in prompt plus completion, 0-based", unit="token")
TOKEN_ID = column("token_id", INT32, "token at this position", unit="token id")
IS_RESPONSE = column("is_response", BOOL, "True for a completion token, False for a prompt token")


def nullable(field: pa.Field, null_when: str) -> pa.Field:
    """The same column where it may be null, with the reason."""
    facts = {key.decode(): value.decode() for key, value in field.metadata.items()}
    return column(field.name, field.type, facts["meaning"], unit=facts["unit"], null_when=null_when)
