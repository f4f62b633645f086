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
        (("coefficient=1e39",), "coefficient=1e+39 is beyond float32; use one below 3e+38."),
        (("method=[]",), "method=[] selects nothing; use one of mean_difference, "),
        (
            ("cluster.device=cuda",),
            "cluster.device=cuda with cluster.gpus_per_rank=0 leaves the ranks no GPU; use "
            "cluster.gpus_per_rank=1 cluster.backend=nccl, or cluster=h200x8.",
        ),
        (("model.path=' '",), "model.path is empty; give a folder with config.json."),
        (
            ("model.path='~nobody_of_that_name/x'",),
            "model.path=~nobody_of_that_name/x names the home of a user that is not here;",
        ),
        (("run_dir='~nobody_of_that_name/x'",), "run_dir=~nobody_of_that_name/x names the home"),
        (("model.shipped=null",), "model=toy_mla has no weights here: add model.path=DIR."),
        (("capture.sites=[]",), "capture.sites=[] selects nothing; use a list such as"),
        (
            ("extraction.held_out=0",),
            "extraction.held_out=0 is no share of the pairs; use a number between 0 and 1, such",
        ),
        (
            ("extraction.tokens='response[5:2]'",),
            "extraction.tokens=response[5:2] selects none of the tokens that "
            "extraction.max_new_tokens=16 leaves; use response[:5], or more tokens.",
        ),
        (
            ("extraction.tokens='response[4:]'", "extraction.max_new_tokens=4"),
            "extraction.tokens=response[4:] selects none",
        ),
        (("extraction.tokens='response[-17]'",), "extraction.tokens=response[-17] selects none"),
        (("capture.tokens=response", "capture.max_new_tokens=0"), "capture.tokens=response selec"),
        (
            ("trait=guilt", "extraction.min_passed=100"),
            "extraction.min_passed=100: trait=guilt has 26 responses on a side; use 1 to 26, or",
        ),
        (("seed=-1",), "seed=-1 is too small; use 0 to 2^63 - 1."),
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
            "extraction.held_out=1.5 is too large; use 0 to 1.",
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
            "generate.temperature=-0.5 is too small; use 0 (greedy) or more.",
        ),
        (("steering.controls=[mirror]",), "steering.controls=mirror does not exist; use one of"),
        (("extraction.site=middle",), "extraction.site=middle does not exist;"),
        (("trait=guilt", "extraction.num_pairs=999"), "extraction.num_pairs=999: trait=guilt has "),
        (
            ("trait=guilt", "extraction.num_pairs=2", "extraction.min_passed=1"),
            "extraction.num_pairs=2: trait=guilt needs at",
        ),
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


@pytest.mark.parametrize("job", ["extract", "capture", "project", "calibrate"])
def test_a_coefficient_that_would_do_nothing_is_refused(job: str) -> None:
    got = refusal(job, "coefficient=3")
    assert got == (
        f"coefficient=3: jobs.{job} steers nothing as asked; use jobs.steer, or leave it out."
    )


def test_generation_with_a_coefficient_needs_a_trait() -> None:
    got = refusal("generate", "coefficient=3", "layer=2")
    assert got.endswith("steers nothing as asked; add trait=anxiety and layer=3, or leave it out.")


def test_generation_without_a_trait_is_plain() -> None:
    assert resolved("generate").traits == ()


def test_every_token_selector_that_can_take_something_is_taken() -> None:
    for tokens in ("all", "prompt[-1]", "response[0]", "response[-16]", "all[:]", "prompt[3:4]"):
        assert resolved("steer", f"extraction.tokens='{tokens}'").config.extraction.tokens == tokens


def test_a_list_of_all_layers_is_all_layers() -> None:
    assert resolved("steer", "layer=[all]").layers == "all"


@pytest.mark.parametrize("job", ["capture", "project", "calibrate", "pipeline", "generate"])
def test_a_job_that_reads_prompts_needs_some(job: str) -> None:
    got = refusal(job, "prompts.prompts=[]")
    assert got == f"prompts.prompts=[]: jobs.{job} needs at least one; use prompts=everyday."


def test_a_job_that_reads_no_prompts_needs_none() -> None:
    assert resolved("steer", "prompts.prompts=[]").job == "steer"
    assert resolved("generate", "prompts.prompts=[]", "generate.prompt=Hi").job == "generate"


def test_an_empty_prompt_is_refused() -> None:
    assert refusal("generate", "generate.prompt=' '").startswith("generate.prompt is empty; write")
    got = refusal("capture", "prompts.prompts=[{id: a, text: ' '}]")
    assert got.startswith("prompts=everyday has a prompt 'a' with an empty text; write one")
    got = refusal("capture", "prompts.prompts=[{id: '', text: hello}]")
    assert got.startswith("prompts=everyday has a prompt '' with an empty id; write one")


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
