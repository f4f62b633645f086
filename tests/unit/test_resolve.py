"""A composed configuration becomes a frozen request, or one sentence with the way out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from conf.errors import UserError
from conf.resolve import PROJECT, JobRequest, extraction_request, resolve
from conf.schema import register

CONF = Path(__file__).resolve().parents[2] / "conf"


@pytest.fixture(autouse=True, scope="module")
def hydra_at_conf() -> Iterator[None]:
    GlobalHydra.instance().clear()
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def resolved(job: str, *overrides: str) -> JobRequest:
    return resolve(compose(job, overrides=list(overrides)), overrides)


def refusal(job: str, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        resolved(job, *overrides)
    return str(caught.value)


def test_a_bare_job_leaves_layers_and_coefficients_to_itself() -> None:
    request = resolved("steer")

    assert request.job == "steer"
    assert request.layers is None
    assert request.coefficients is None
    assert request.methods == ("mean_difference", "probe")
    assert request.model_path == PROJECT / "jobs" / "toy" / "models" / "toy_mla"
    assert request.model_name == "toy_mla"


def test_what_was_typed_is_kept_for_the_record() -> None:
    assert resolved("steer", "layer=2", "seed=7").overrides == ("layer=2", "seed=7")


@pytest.mark.parametrize(
    ("typed", "layers"),
    [
        ("layer=3", (3,)),
        ("layer=[2,3]", (2, 3)),
        ("layer=[5,2,5]", (2, 5)),
        ("layer=0", (0,)),
        ("layer=all", "all"),
        ("layer=null", None),
    ],
)
def test_layers_are_one_a_list_all_or_left_open(typed: str, layers: object) -> None:
    assert resolved("steer", typed).layers == layers


@pytest.mark.parametrize(
    ("typed", "coefficients"),
    [
        ("coefficient=2.5", (2.5,)),
        ("coefficient=4", (4.0,)),
        ("coefficient=[1,2,-3]", (1.0, 2.0, -3.0)),
        ("coefficient=[2,1,2.0]", (2.0, 1.0)),
        ("coefficient=0", (0.0,)),
    ],
)
def test_coefficients_keep_their_order_and_lose_repetitions(
    typed: str, coefficients: tuple[float, ...]
) -> None:
    assert resolved("steer", typed).coefficients == coefficients


def test_one_method_or_several() -> None:
    assert resolved("extract", "method=probe").methods == ("probe",)
    assert resolved("extract", "method=[probe,paired_mean_difference]").methods == (
        "probe",
        "paired_mean_difference",
    )


def test_a_trait_is_cut_to_the_pairs_and_questions_asked_for() -> None:
    request = resolved("steer", "trait=guilt", "extraction.num_pairs=6", "steering.num_questions=2")
    (guilt,) = request.traits

    assert guilt.name == "guilt"
    assert len(guilt.pairs) == 6
    assert len(guilt.questions) == 2
    assert "\n" not in guilt.definition


def test_a_shipped_model_can_be_replaced_by_a_folder() -> None:
    request = resolved("steer", "model.path=/models/My Model")

    assert request.model_path == Path("/models/My Model")
    assert request.model_name == "My_Model"


def test_a_named_model_keeps_its_name_wherever_it_lies() -> None:
    request = resolved("steer", "model=mistral_7b", "model.path=/anywhere/v1")

    assert request.model_name == "mistral_7b"


def test_the_run_folder_may_be_in_the_home_folder() -> None:
    assert resolved("steer", "run_dir='~/runs/x'").run_dir == Path.home() / "runs" / "x"


def test_a_request_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        resolved("steer").job = "extract"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (
            ("layer=-1",),
            "layer=-1 is not a layer; use a number from 0, a list such as [2,3], or all.",
        ),
        (
            ("layer=2.5",),
            "layer=2.5 is not a layer; use a number from 0, a list such as [2,3], or all.",
        ),
        (
            ("layer=true",),
            "layer=True is not a layer; use a number from 0, a list such as [2,3], or all.",
        ),
        (("layer=[]",), "layer=[] selects nothing; use a number, a list such as [2,3], or all."),
        (
            ("coefficient=lots",),
            "coefficient=lots is not a number; use a length such as 2.5, or a list [1,2].",
        ),
        (
            ("coefficient=nan",),
            "coefficient=nan is not a number; use a length such as 2.5, or a list [1,2].",
        ),
        (
            ("coefficient=[]",),
            "coefficient=[] selects nothing; use a number or a list such as [1,2].",
        ),
        (("method=prob",), "method=prob does not exist; did you mean probe?"),
        (
            ("cluster.tensor_parallel_size=0",),
            "cluster.tensor_parallel_size=0 is too small; use 1 or more.",
        ),
        (
            ("cluster.groups=0",),
            "cluster.groups=0 is too small; use 1 or more.",
        ),
        (
            ("cluster.groups=3", "cluster.max_groups=2"),
            "cluster.max_groups=2 is below cluster.groups=3; raise it, or leave it out.",
        ),
        (
            ("cluster.groups=2", "cluster.resident=true"),
            "cluster.resident=true is one group that is loaded already; leave cluster.groups and "
            "cluster.max_groups out, or set cluster.resident=false.",
        ),
        (
            ("schedule.bundles_per_group=0",),
            "schedule.bundles_per_group=0 is too small; use 1 or more.",
        ),
        (
            ("model@extract_model=toy_gqa", "extract_model.dtype=fp8"),
            "extract_model.dtype=fp8 does not exist; use one of bfloat16, float32.",
        ),
        (
            ("cluster.backend=nccl",),
            "cluster.backend=nccl needs GPUs; use cluster.backend=gloo on the CPU.",
        ),
        (
            ("cluster.device=tpu",),
            "cluster.device=tpu does not exist; did you mean cpu?",
        ),
        (
            ("model.dtype=float16",),
            "model.dtype=float16 does not exist; did you mean bfloat16?",
        ),
        (
            ("model=mistral_7b",),
            "model=mistral_7b has no weights here: download "
            "https://huggingface.co/mistralai/Mistral-7B-v0.1 and add model.path=DIR.",
        ),
        (("judge=endpoint", "judge.url=null"), "judge.url=null: judge=endpoint needs its address"),
        (
            ("storage.kind=s3",),
            "storage.bucket=null: storage.kind=s3 needs it; add storage.bucket=NAME.",
        ),
        (("run_dir=' '",), "run_dir is empty; give a folder, such as run_dir=runs/first."),
        (
            ("extraction.tokens='response[:'",),
            "extraction.tokens=response[: cannot be read; write it like response[:5].",
        ),
        (
            ("steering.positions=somewhere",),
            "steering.positions=somewhere cannot be read; write it like all.",
        ),
        (
            ("extraction.held_out=1.5",),
            "extraction.held_out=1.5 is no share of the pairs; use 0 to 1.",
        ),
        (
            ("traits.anxiety.sign=0",),
            "traits.anxiety.sign=0: use 1 (steering raises the trait) or -1 (steering lowers it).",
        ),
        (
            ("steering.coefficient_ratios=[0.5,-1]",),
            "steering.coefficient_ratios has -1.0; ratios are above 0.",
        ),
        (
            ("steering.coefficient_ratios=[]",),
            "steering.coefficient_ratios=[] leaves no coefficient; give coefficient=X.",
        ),
        (("steering.samples=0",), "steering.samples=0 is too small; use 1 or more."),
        (
            ("generate.temperature=-0.5",),
            "generate.temperature=-0.5 is not a temperature; use 0 (greedy) or above.",
        ),
        (("steering.controls=[mirror]",), "steering.controls=mirror does not exist; use one of"),
        (("extraction.site=middle",), "extraction.site=middle does not exist;"),
        (("trait=guilt", "extraction.num_pairs=999"), "extraction.num_pairs=999: trait=guilt has "),
        (("trait=guilt", "extraction.num_pairs=2"), "extraction.num_pairs=2: trait=guilt needs at"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_met_is_refused_in_one_sentence(
    overrides: tuple[str, ...], sentence: str
) -> None:
    got = refusal("steer", *overrides)

    assert got.startswith(sentence)
    assert "\n" not in got


def test_steering_without_a_trait_is_refused() -> None:
    assert refusal("steer", "trait=[]").startswith("trait=[]: jobs.steer needs at least one")


def test_steered_generation_needs_a_layer_and_a_coefficient() -> None:
    sentence = refusal("generate", "+trait=guilt", "layer=3")

    assert sentence.startswith("layer=null or coefficient=null: steered generation needs both")


def test_generation_without_a_trait_is_plain() -> None:
    assert resolved("generate").traits == ()


def test_two_prompts_of_one_id_are_refused() -> None:
    same = "prompts.prompts=[{id: a, text: x},{id: a, text: y}]"

    assert refusal("capture", same).endswith("has two prompts 'a'; rename one.")


def test_the_other_model_is_asked_the_same_question() -> None:
    request = resolved("steer", "layer=2", "model@extract_model=toy_gqa")
    other = extraction_request(request)

    assert other is not None
    assert (other.model_name, other.layers) == ("toy_gqa", (2,))
    assert other.model_path == PROJECT / "jobs" / "toy" / "models" / "toy_gqa"
    assert other.config.extract_model is None
    assert request.model_name == "toy_mla"
    assert extraction_request(resolved("steer")) is None


def test_another_model_without_weights_is_refused_by_its_own_name() -> None:
    request = resolved("steer", "model@extract_model=kimi_k2_base")
    with pytest.raises(UserError, match=r"^extract_model=kimi_k2_base .* extract_model\.path=DIR"):
        extraction_request(request)
