"""Documents tell the truth: what they name exists, commands run, nothing private is tracked."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCS = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "jobs/README.md")
ROOMS = ("conf", "storage", "actors", "jobs")
SUFFIXES = "py|md|yaml|yml|toml|lock|json|sh|html|css"


def _doc(name: str) -> str:
    return (ROOT / name).read_text()


def _code_blocks(text: str) -> str:
    return "\n".join(re.findall(r"^```\w*\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE))


def _spans(text: str) -> list[str]:
    """Inline code, code blocks left out."""
    plain = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"`([^`\n]+)`", plain)


def _tracked() -> list[Path]:
    """Files under version control; in a bare copy of the source, all that are not results."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode == 0 and listed.stdout:
        paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    else:
        left_out = {".venv", ".git", "runs", "__pycache__", ".gpu"}
        paths = [p for p in ROOT.rglob("*") if not left_out & set(p.relative_to(ROOT).parts)]
    return [path for path in paths if path.is_file()]


def _texts() -> Iterator[tuple[str, str]]:
    for path in _tracked():
        name = path.relative_to(ROOT).as_posix()
        if name == "tests/unit/test_docs.py" or path.suffix in {".safetensors", ".png", ".parquet"}:
            continue
        yield name, path.read_text(encoding="utf-8", errors="replace")


@pytest.mark.parametrize("doc", DOCS)
def test_every_file_that_a_document_names_exists(doc: str) -> None:
    text = _doc(doc)
    named = {
        span.strip().removesuffix("/")
        for span in _spans(text)
        if re.fullmatch(rf"[\w./-]+(/|\.({SUFFIXES}))", span.strip())
    }
    named |= {link for link in re.findall(r"\]\(([^)#\s]+)\)", text) if "://" not in link}
    results = ("runs/", "data", "_meta", "wip", "journal", "report.html", ".venv", "config.json")
    folder = (ROOT / doc).parent
    missing = [
        name
        for name in sorted(named)
        if not name.startswith(results) and not any((at / name).exists() for at in (ROOT, folder))
    ]
    assert missing == []


@pytest.mark.parametrize("doc", DOCS)
def test_every_make_target_that_a_document_names_exists(doc: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", _doc("Makefile"), flags=re.MULTILINE))
    commands = _code_blocks(_doc(doc)) + "\n" + "\n".join(_spans(_doc(doc)))
    named = re.findall(r"(?:^|[\s;&(])make ([a-z]+)\b", commands, flags=re.MULTILINE)
    assert set(named) <= targets


@pytest.mark.parametrize("doc", DOCS)
def test_every_module_that_a_document_runs_exists(doc: str) -> None:
    modules = set(re.findall(r"-m ((?:jobs|tests)\.[\w.]+)", _doc(doc)))
    missing = [
        name for name in sorted(modules) if not (ROOT / f"{name.replace('.', '/')}.py").exists()
    ]
    assert missing == []


def _commands(text: str) -> list[tuple[str, list[str]]]:
    """(job, arguments) of each job command in the text's code blocks."""
    joined = re.sub(r"\\\n\s*", " ", _code_blocks(text))
    pattern = r"(?:python3? -m jobs\.|traitmill )(\w+)((?: +[^\s#]+)*)"
    return [(job, shlex.split(arguments)) for job, arguments in re.findall(pattern, joined)]


def test_the_readme_has_a_command_for_the_toy_model_and_one_for_gpus() -> None:
    text = _doc("README.md")
    assert "make demo" in text
    assert "make test" in text
    assert any("cluster=h200x8" in arguments for _, arguments in _commands(text))


def test_every_setting_in_a_readme_command_is_in_the_schema() -> None:
    """Each ``key=value`` of the README is a group with that choice, or a leaf of the schema."""
    from conf.describe import settings
    from conf.schema import GROUPS, JOBS, JobConfig
    from jobs.overrides import expanded

    leaves = {setting.path for setting in settings(JobConfig)}
    bad = []
    for job, arguments in _commands(_doc("README.md")):
        if job not in JOBS:
            continue
        for argument in arguments:
            if argument.startswith("--") or "=" not in argument:
                continue
            key, value = expanded(argument).split("=", 1)
            choices = value.strip("'\"[]").split(",")
            if key == "extract_model":  # the group model, for a second one
                key = "model"
            if key in GROUPS:
                bad += [c for c in choices if not (ROOT / "conf" / key / f"{c}.yaml").exists()]
            elif key not in leaves:
                bad.append(argument)
    assert bad == []


def test_every_readme_command_is_accepted_by_its_job() -> None:
    """Composed and checked as on the command line; nothing is started."""
    from conf.schema import JOBS
    from jobs.entry import main

    joined = re.sub(r"\\\n\s*", " ", _code_blocks(_doc("README.md")))
    commands = re.findall(r"python3? -m jobs\.(\w+) (.*)$", joined, flags=re.MULTILINE)
    assert len(commands) >= len(JOBS)
    for job, typed in commands:
        asked = shlex.split(typed, comments=True)
        assert main(job, asked, runner=lambda points, console: 0) == 0, f"jobs.{job} {typed}"


def test_every_job_has_a_root_config_an_entry_point_and_a_place_in_the_readme() -> None:
    from conf.schema import JOBS

    readme = _doc("README.md")
    for job in JOBS:
        assert (ROOT / "conf" / f"{job}.yaml").exists(), job
        assert (ROOT / "jobs" / f"{job}.py").exists(), job
        assert f"jobs.{job}" in readme, job


def _errors() -> set[str]:
    """Names of all error classes that the project raises."""
    found = set()
    for room in ROOMS:
        for path in (ROOT / room).rglob("errors.py"):
            module = importlib.import_module(
                path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
            )
            for name, kind in inspect.getmembers(module, inspect.isclass):
                if issubclass(kind, BaseException) and kind.__module__ == module.__name__:
                    found.add(name)
    return found


def test_the_error_index_explains_the_errors_that_exist() -> None:
    text = _doc("jobs/README.md")
    headed = set(re.findall(r"^### (\w+)$", text, flags=re.MULTILINE))
    assert headed - _errors() == set(), "the index explains errors that do not exist"
    assert _errors() - headed == set(), "errors without an entry in jobs/README.md"
    for entry in re.split(r"^### ", text, flags=re.MULTILINE)[1:]:
        for part in ("**Symptom.**", "**Cause.**", "**Fix.**"):
            assert part in entry, f"{entry.split()[0]} lacks {part}"


def test_the_lock_pins_every_dependency_exactly_and_names_no_index() -> None:
    lines = [line for line in _doc("requirements.lock").splitlines() if not line.startswith("#")]
    pinned = dict(line.lower().replace("_", "-").split("==") for line in lines)
    assert pinned["torch"] == "2.13.0"
    declared = re.findall(r'^  "([\w-]+)[\[>=<]', _doc("pyproject.toml"), flags=re.MULTILINE)
    assert len(declared) > 20
    assert {name.lower() for name in declared} - set(pinned) == set()


def test_each_python_block_of_the_readme_compiles() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", _doc("README.md"), flags=re.DOTALL | re.MULTILINE)
    assert blocks
    for block in blocks:
        ast.parse(block)


def test_the_cluster_file_and_every_yaml_parse() -> None:
    for path in _tracked():
        if path.suffix in {".yaml", ".yml"}:
            assert list(yaml.safe_load_all(path.read_text())), path


# Spelled with brackets so that no pattern finds itself.
PRIVATE = {
    "a path of one machine": r"(?<![\w.<$}])/(?:work/|root/|Users/|home/(?!ray\b|\w*>)\w)",
    "a package index": r"pypi\.or[g]|pythonhosted\.or[g]|download\.pytorch\.or[g]|artifactor[y]",
    "an access key": r"\b(?:AKIA|ASIA)(?!IOSFODNN7EXAMPLE)[A-Z0-9]{16}\b",
    "a token": r"\b(?:hf_[A-Za-z0-9]{30,}|sk-[A-Za-z0-9]{32,}|gh[pousr]_[A-Za-z0-9]{30,})\b",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KE[Y]-----",
    "a word about how it was written": (
        r"(?i)\b(?:claud[e]|anthropi[c]|chatgp[t]|copilo[t]|codex cl[i]|as an ai languag[e]"
        r"|ai[- ]generate[d]|coding agen[t]|subagen[t])\b"
    ),
}


@pytest.mark.parametrize("what", PRIVATE)
def test_no_tracked_file_holds(what: str) -> None:
    pattern = re.compile(PRIVATE[what])
    found = [
        f"{name}:{text[: match.start()].count(chr(10)) + 1}: {match.group()}"
        for name, text in _texts()
        for match in pattern.finditer(text)
    ]
    assert found == []


def test_tracked_files_are_small_enough_to_ship() -> None:
    sizes = {path: path.stat().st_size for path in _tracked()}
    large = [
        f"{path.relative_to(ROOT)}: {size}"
        for path, size in sizes.items()
        if size > 500_000 and "jobs/toy/models" not in path.as_posix()
    ]
    assert large == []
    toys = sum(size for path, size in sizes.items() if "jobs/toy/models" in path.as_posix())
    assert toys <= 10_000_000, "the shipped toy models grew past 10 MB together"
    assert sum(sizes.values()) <= 16_000_000
