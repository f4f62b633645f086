"""The report: one file, nothing fetched, no text of a model run, no missing value shown as zero."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest

from jobs.report.html import SECTIONS, render, write_report
from storage.manifest import Run
from tests.report_run import HOSTILE, build


class Page(HTMLParser):
    """Elements, texts and scripts, as a browser would see them."""

    def __init__(self, source):
        super().__init__(convert_charrefs=True)
        self.tags, self.scripts, self.texts, self.links = [], [], [], []
        self._inside = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br", "img", "input", "link"):
            self._inside.append(tag)

    def handle_endtag(self, tag):
        while self._inside and self._inside.pop() != tag:
            pass

    def handle_data(self, data):
        if self._inside and self._inside[-1] == "script":
            self.scripts.append(data)
        elif not self._inside or self._inside[-1] != "style":
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    def figures(self):
        return json.loads(next(s for s in self.scripts if s.startswith('{"figure')))


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with build(tmp_path_factory.mktemp("run")) as run:
        source = render(run)
    return source, Page(source)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    with build(tmp_path_factory.mktemp("run"), said=HOSTILE) as run:
        source = render(run)
    return source, Page(source)


def test_every_section_of_the_menu_exists_once(page):
    ids = [attrs.get("id") for _, attrs in page[1].tags]
    for anchor in SECTIONS:
        assert ids.count(anchor) == 1
    hrefs = [attrs["href"] for tag, attrs in page[1].tags if tag == "a"]
    assert hrefs == [f"#{anchor}" for anchor in SECTIONS]


def test_the_headline_has_the_numbers_of_the_best_coherent_cell(page):
    text = page[1].text
    # Layer 2 at 1.0: score 80 + 5, baseline 22.5. Layer 1 at 1.0 is below the gate.
    assert "+62.5 ± 0.8" in text
    assert "22.5 → 85.0 at layer 2, coefficient 1 x norm, the largest tried" in text
    assert "raised by 3 SE" in text
    assert "negated lowers" in text
    # The negated vector: 20 - 12 + 5 - 22.5.
    assert "\u22129.5 ± 0.8" in text
    assert "the gate of 70" in text


def test_the_cross_fitted_effect_stands_beside_the_chosen_one(page):
    # By question: 80 + 2q less 20 + q, so 60 + q over q = 0..5; here both are the same cell.
    assert "+62.5 ± 0.8" in page[1].text
    assert page[1].text.count("+62.5 ± 0.8") >= 3


def test_what_was_run_is_said_with_digests_seeds_versions_and_times(page):
    text = page[1].text
    for fact in (
        "python -m jobs.pipeline",
        "2026-01-02 03:04:05 UTC",
        "120 s",
        "4 (1 already done)",
        "toy · sha256 abababababab",
        "anxiety · sha256 cdcdcdcdcdcd",
        "lexicon v1",
        "numpy 2.0; torch 2.13",
        "3 of 4",
    ):
        assert fact in text, fact


def test_every_figure_has_its_place_and_its_data(page):
    source, parsed = page
    places = [a["data-figure"] for t, a in parsed.tags if "data-figure" in a]
    assert sorted(places) == sorted(parsed.figures())
    assert len(places) == len(set(places)) == 12
    labels = [a["aria-label"] for t, a in parsed.tags if "data-figure" in a]
    assert all(labels)
    kinds = {trace["type"] for f in parsed.figures().values() for trace in f["data"]}
    assert kinds == {"heatmap", "scatter"}
    assert source.count("plotly.js v") >= 1


def test_answers_stand_side_by_side_at_the_chosen_cell(page):
    text = page[1].text
    assert "Calm 5. I am afraid." in text
    assert "trait 2 1.0 5. I am afraid." in text
    assert "negated 2 1.0 0. I am afraid." in text
    assert "random 2 1.0 0." in text
    assert "trait 0 0.5" not in text


def test_tokens_are_coloured_by_their_distance_from_the_mean(page):
    spans = [a for t, a in page[1].tags if t == "span" and "token" in a.get("class", "").split()]
    assert any(a.get("style", "").startswith("--up:1.00") for a in spans if "title" in a)
    assert any(a.get("style", "").startswith("--down:1.00") for a in spans if "title" in a)
    without = [a for a in spans if "no value" in a.get("title", "")]
    assert without
    assert all("style" not in a for a in without)
    assert "6 of 8 prompts" in page[1].text


def test_every_committed_file_is_listed_with_rows_and_digest(page):
    text = page[1].text
    assert "steering-" + "2" * 24 in text
    assert re.search(r"judgements 228 [\d.]+ kB [0-9a-f]{12}", text)


def test_a_missing_value_is_null_in_figures_and_a_dash_in_tables(tmp_path):
    with Run.open(tmp_path) as run:
        parsed = Page(render(run))
    assert "0.0" not in parsed.text
    assert parsed.scripts[0] == "{}"


def test_a_run_without_results_says_so_in_every_section(tmp_path):
    with Run.open(tmp_path) as run:
        text = Page(render(run)).text
    for sentence in (
        "No steering results are committed in this run",
        "No steered answers are committed",
        "No projection is committed",
        "No evaluation is committed",
        "No direction is committed",
        "No command is recorded",
        "No task is committed",
        "no results yet",
    ):
        assert sentence in text, sentence


def test_hostile_text_adds_no_element_and_no_script(page, hostile):
    plain, attacked = page[1], hostile[1]
    count = lambda parsed: sorted(t for t, _ in parsed.tags)  # noqa: E731  one line is enough
    assert count(attacked) == count(plain)
    assert len(attacked.scripts) == len(plain.scripts) == 3
    assert "img" not in count(attacked)
    handlers = [k for _, attrs in attacked.tags for k in attrs if k.startswith("on")]
    assert handlers == []


def test_hostile_text_is_shown_as_it_was_written(hostile):
    text = hostile[1].text
    assert "<script>alert(1)</script>" in text
    assert "<img src=x onerror=alert(2)>" in text
    assert "{{figures}}" in text
    assert "&lt;" in text


def test_marks_that_turn_or_hide_text_are_named(hostile):
    source = hostile[0]
    assert "[U+202E]gnirts[U+202C]" in source
    assert "\u2407" in source
    assert "\u2400" in source
    body = source.split("<main>")[1].split("</main>")[0]
    assert not set(body) & set("\u202e\u202c\x00\x07\x9b")


def test_json_for_the_script_cannot_end_its_element(hostile):
    parsed = hostile[1]
    figures = parsed.figures()
    inside = next(s for s in parsed.scripts if s.startswith('{"figure'))
    assert "<" not in inside
    assert ">" not in inside
    assert "&" not in inside
    assert inside.isascii()
    tokens = [
        t for f in figures.values() for trace in f["data"] for t in trace.get("customdata", [])
    ]
    shown = [t[0] for t in tokens if isinstance(t, list) and "script" in str(t[0])]
    # Plotly reads tags in its texts, so they are escaped once more inside the data.
    assert shown
    assert all("<" not in text for text in shown)


def test_a_trait_name_is_escaped_wherever_it_appears(tmp_path):
    with build(tmp_path, trait="<b onclick=x>anx</b>") as run:
        parsed = Page(render(run))
    assert not any("onclick" in attrs for _, attrs in parsed.tags)
    assert "<b onclick=x>anx</b>" in parsed.text


def test_the_policy_allows_these_scripts_alone_and_no_request(page):
    parsed = page[1]
    policy = next(a["content"] for t, a in parsed.tags if "content-security" in str(a).lower())
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["base-uri"] == "'none'"
    assert "unsafe" not in rules["script-src"]
    run_scripts = [s for s in parsed.scripts if not s.startswith("{")]
    assert len(run_scripts) == 2
    digests = {
        f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'"
        for s in run_scripts
    }
    assert set(rules["script-src"].split()) == digests


def test_nothing_is_loaded_from_anywhere(page):
    for tag, attrs in page[1].tags:
        assert "src" not in attrs
        assert tag not in ("link", "iframe", "object", "embed", "base")
    style = page[0].split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


def test_the_file_is_whole_small_enough_and_replaces_the_old_one(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    with build(tmp_path / "run") as run:
        write_report(run, path)
        first = path.read_bytes()
        write_report(run, path)
    assert path.read_bytes() == first
    assert first.endswith(b"</html>\n")
    assert len(first) < 6_000_000
    assert [p.name for p in tmp_path.glob(".report*")] == []


def test_a_lone_surrogate_does_not_stop_the_report(tmp_path):
    class Odd:
        """A run whose command holds half a character, as a broken terminal may type it."""

        def __init__(self, run):
            self.run = run

        def commits(self):
            return self.run.commits()

        def read(self, table, columns=None):
            class Rows:
                def __init__(self, rows):
                    self.rows = rows

                def to_pylist(self):
                    return [dict(r, host="a\ud800b") if "host" in r else r for r in self.rows]

            return Rows(self.run.read(table, columns=columns).to_pylist())

    with build(tmp_path / "run") as run:
        write_report(Odd(run), tmp_path / "report.html")
    assert "a\ufffdb" in (tmp_path / "report.html").read_text(encoding="utf-8")
