"""The README of a run folder names its tables, explains each column and lets readers find them."""

from __future__ import annotations

import pytest
import yaml
from datasets import load_dataset

from storage import readme
from storage.manifest import Run
from storage.schema import TABLES
from tests.faults.worker import write_task


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with Run.open(tmp_path_factory.mktemp("readme") / "run") as opened:
        write_task(opened, "t1", 0)
        write_task(opened, "t4", 0)
        opened.write_readme()
        yield opened


def front_of(text: str) -> dict:
    return yaml.safe_load(text.split("---")[1])


def test_the_front_lists_the_tables_that_have_rows_and_no_others(run):
    front = front_of(readme.text(run.commits()))
    assert [each["config_name"] for each in front["configs"]] == ["activations", "vetting"]
    assert front["configs"][1]["data_files"] == "data/vetting/**/*.parquet"


def test_datasets_finds_every_table_by_the_front_alone(run, tmp_path):
    for name, num_rows in (("vetting", 40), ("activations", 3000)):
        found = load_dataset(str(run.root), name, cache_dir=str(tmp_path / "cache"))
        assert found["train"].num_rows == num_rows


def test_rows_are_counted_over_all_commits(run):
    text = readme.text(run.commits())
    assert "## vetting: 40 rows" in text
    assert "## activations: 3000 rows" in text


def test_each_column_is_there_with_its_meaning_unit_and_reason_for_nulls(run):
    text = readme.text(run.commits())
    for table in ("vetting", "activations"):
        section = text.split(f"## {table}:")[1].split("\n## ")[0]
        for field in TABLES[table]:
            assert (
                f"| {field.name} | {field.type} | {field.metadata[b'meaning'].decode()}" in section
            )
    assert "(token id)" in text
    assert f"| {TABLES['vetting'].field('score').metadata[b'null_when'].decode()} |" in text


def test_equal_commits_give_equal_text_whatever_their_order(run):
    commits = run.commits()
    turned = dict(reversed(commits.items()))
    assert readme.text(commits) == readme.text(turned)
    assert (run.root / "README.md").read_text() == readme.text(commits)


def test_a_run_without_results_has_a_readme_without_a_front():
    text = readme.text({})
    assert text.startswith("# Results of traitmill")
    assert "configs" not in text.split("```")[0]
