"""Seeds and data of every task upstream are named in each result."""

from __future__ import annotations

from conf.schema import PairConfig, PromptItem, TraitConfig
from jobs.sources import dataset_digest, prompts_digest, sources
from jobs.task import Task

CALM = TraitConfig(name="calm", pairs=[PairConfig("I rest", "I run")], questions=["How so?"])


def task(**question) -> Task:
    return Task("id", "kind", "label", question)


def test_a_tasks_own_seed_and_data_are_named():
    assert sources(task(seed=3), [], {"calm": "aa"}) == {
        "seeds": [3],
        "dataset_digests": {"calm": "aa"},
    }


def test_what_lies_upstream_is_named_once_and_in_order():
    first = Task("a", "k", "l", {}, {"seeds": [5], "dataset_digests": {"guilt": "bb"}})
    second = Task("b", "k", "l", {}, {"seeds": [1, 5], "dataset_digests": {"anxiety": "cc"}})

    found = sources(task(), [first, second], {})

    assert found == {"seeds": [1, 5], "dataset_digests": {"anxiety": "cc", "guilt": "bb"}}
    assert list(found["dataset_digests"]) == ["anxiety", "guilt"]


def test_a_task_without_seed_or_data_says_so():
    assert sources(task(seed=None), [], {}) == {"seeds": [], "dataset_digests": {}}


def test_the_data_digest_follows_pairs_questions_and_name():
    pairs = TraitConfig(name="calm", pairs=[PairConfig("I rest", "I walk")], questions=["How so?"])
    asked = TraitConfig(name="calm", pairs=CALM.pairs, questions=["Why?"])
    named = TraitConfig(name="rest", pairs=CALM.pairs, questions=CALM.questions)

    assert len({dataset_digest(trait) for trait in (CALM, pairs, asked, named)}) == 4
    assert len(dataset_digest(CALM)) == 64


def test_the_prompts_digest_follows_order_and_text():
    one, two = PromptItem("a", "Hello"), PromptItem("b", "Good day")
    found = {prompts_digest("day", items) for items in ([one, two], [two, one], [one])}
    assert len(found) == 3
