"""The rules of the house, held by reading the source: rooms, owners, sizes, errors, settings."""

from __future__ import annotations

import ast
import importlib
import inspect
import pickle
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from pathlib import Path

import pytest

from conf.schema import GROUPS, JOBS

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("conf", "storage", "actors", "jobs")  # imports point left, nothing points right
ENTRIES = {f"jobs/{job}.py" for job in JOBS}
RAY_ACTORS = ("gang", "group", "parcel", "rank", "supervisor", "writer", "judge", "metrics")
MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 50

Tree = ast.Module


def _sources(*folders: str) -> dict[str, Tree]:
    found = sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text()) for path in found}


SOURCES = _sources(*ROOMS)


def _imports(tree: Tree) -> Iterator[str]:
    """Every imported module by its dotted name, imports inside functions and for types too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _imports_of(*modules: str, within: Callable[[str], bool]) -> list[str]:
    return sorted(
        {
            f"{path} imports {name}"
            for path, tree in SOURCES.items()
            if within(path)
            for name in _imports(tree)
            if any(name == module or name.startswith(f"{module}.") for module in modules)
        }
    )


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_from_jobs_to_actors_to_storage_to_conf(room: str) -> None:
    later = ROOMS[ROOMS.index(room) + 1 :]
    assert _imports_of(*later, within=lambda path: path.startswith(f"{room}/")) == []


@pytest.mark.parametrize(
    ("folder", "banned"),
    [
        ("conf/", ("torch", "ray", "transformers", "pyarrow", "pandas", "boto3")),
        ("storage/", ("torch", "ray", "transformers", "hydra")),
        ("actors/engine/", ("ray", "actors.group", "actors.rank")),
        ("actors/model/", ("ray", "actors.group", "actors.rank")),
        (
            "actors/kernels/",
            ("ray", "actors.rank", "actors.engine", "actors.model"),
        ),
        ("jobs/traits/", ("torch", "ray", "transformers", "hydra")),
        ("jobs/report/", ("torch", "ray", "transformers", "hydra", "actors.group")),
    ],
)
def test_a_room_never_imports_what_belongs_elsewhere(folder: str, banned: tuple[str, ...]) -> None:
    assert _imports_of(*banned, within=lambda path: path.startswith(folder)) == []


@pytest.mark.parametrize(
    ("dependency", "owners"),
    [
        (
            "ray",
            {f"actors/{name}.py" for name in RAY_ACTORS}
            | {f"jobs/{name}.py" for name in ("driver", "launcher", "cli", "submit")},
        ),
        ("boto3", {"storage/objects.py"}),
        ("botocore", {"storage/objects.py", "storage/retries.py"}),
        (
            "hydra",
            {"conf/schema.py", "jobs/entry.py", "jobs/launcher.py", "jobs/overrides.py"} | ENTRIES,
        ),
        ("plotly", {"jobs/report/plots.py"}),
        ("sklearn", {"jobs/traits/methods.py", "jobs/traits/evaluation.py"}),
        ("triton", set()),
    ],
)
def test_an_outside_dependency_has_few_owners(dependency: str, owners: set[str]) -> None:
    def stranger(path: str) -> bool:
        return path not in owners and not path.startswith("actors/kernels/")

    assert _imports_of(dependency, within=stranger) == []


def test_model_code_alone_knows_transformers() -> None:
    owners = ("actors/model/", "actors/engine/", "actors/rank.py", "jobs/")
    found = _imports_of("transformers", within=lambda path: not path.startswith(owners))
    assert found == []


def _functions(tree: Tree) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return (node for node in ast.walk(tree) if isinstance(node, kinds))


def test_files_and_functions_stay_short() -> None:
    long = [
        f"{path}: {lines} lines"
        for path in SOURCES
        if (lines := len((ROOT / path).read_text().splitlines())) > MAX_FILE_LINES
    ]
    long += [
        f"{path}: {function.name} has {lines} lines"
        for path, tree in SOURCES.items()
        for function in _functions(tree)
        # A Triton kernel is compiled as one piece, so it is read as one piece.
        if not any("triton" in ast.unparse(each) for each in function.decorator_list)
        and (lines := (function.end_lineno or 0) - function.lineno + 1) > MAX_FUNCTION_LINES
    ]
    assert long == []


def test_every_module_opens_with_a_sentence_and_has_a_subject() -> None:
    vague = {"utils", "util", "common", "helpers", "helper", "misc"}
    bad = [path for path in SOURCES if vague & set(Path(path).with_suffix("").parts)]
    for path, tree in SOURCES.items():
        first = (ast.get_docstring(tree) or "").split("\n\n")[0]
        if not first.rstrip().endswith((".", ":", "?")):
            bad.append(f"{path}: the docstring's first line is not a sentence")
    assert bad == []


def test_print_belongs_to_the_console() -> None:
    calls = [
        f"{path}:{node.lineno}"
        for path, tree in SOURCES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
        and path != "jobs/report/console.py"
    ]
    assert calls == []


def _caught(handler: ast.ExceptHandler) -> set[str]:
    if handler.type is None:
        return {"everything"}
    return {node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)}


def test_no_exception_is_swallowed() -> None:
    """What catches everything raises again or uses the error; nothing is skipped in silence."""
    broad = {"everything", "Exception", "BaseException"}
    swallowed = []
    for path, tree in SOURCES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler) and _caught(node) & broad:
                body = [inner for line in node.body for inner in ast.walk(line)]
                raises = any(isinstance(inner, ast.Raise) for inner in body)
                used = any(isinstance(i, ast.Name) and i.id == node.name for i in body)
                if not (raises or used):
                    swallowed.append(f"{path}:{node.lineno}")
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
                named = {ast.unparse(argument) for argument in node.args}
                swallowed += [f"{path}:{node.lineno}"] * len(named & broad)
    assert swallowed == []


def test_there_is_no_unfinished_work_in_the_source() -> None:
    marks = ("TODO", "FIXME", "XXX", "raise NotImplementedError")
    found = [f"{path}: {mark}" for path in SOURCES for mark in marks if mark in _text(path)]
    assert found == []


def _text(path: str) -> str:
    return (ROOT / path).read_text()


def test_there_are_at_least_as_many_lines_of_tests_as_of_source() -> None:
    source = sum(len(_text(path).splitlines()) for path in SOURCES)
    tests = sum(len(_text(path).splitlines()) for path in _sources("tests"))
    assert tests >= source


def _error_classes() -> list[type[BaseException]]:
    found = set()
    for path in SOURCES:
        if path.endswith("errors.py"):
            module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
            members = inspect.getmembers(module, inspect.isclass)
            found |= {kind for _, kind in members if issubclass(kind, BaseException)}
    ours = [kind for kind in found if kind.__module__.split(".")[0] in ROOMS]
    return sorted(ours, key=lambda kind: kind.__qualname__)


def _example(hint: object) -> object:
    """Any value of an annotation, for building one error of each class."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _example(args[0])
    if origin is typing.Literal:
        return args[0]
    if origin is not None:
        inner = [_example(arg) for arg in args if arg is not Ellipsis]
        if origin is tuple:
            return tuple(inner)
        if len(inner) == 2:
            return dict([inner])
        return set(inner) if origin in (set, frozenset) else inner
    if is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        return hint(**{name: _example(inner) for name, inner in hints.items()})  # type: ignore[operator]
    if isinstance(hint, type) and issubclass(hint, BaseException):
        return ValueError("two of eight heads")
    known: dict[object, object] = {str: "a name", int: 3, float: 1.5, bool: True, bytes: b"ab"}
    known |= {Path: Path("folder/file"), type(None): None, object: "anything"}
    return known[hint]


@pytest.mark.parametrize("kind", _error_classes(), ids=lambda kind: kind.__name__)
def test_an_error_crosses_processes_with_its_type_message_and_fields(
    kind: type[BaseException],
) -> None:
    hints = typing.get_type_hints(kind.__init__)
    arguments = inspect.signature(kind.__init__).parameters
    positional, named = [], {}
    for name, parameter in list(arguments.items())[1:]:
        if parameter.kind is parameter.KEYWORD_ONLY:
            named[name] = _example(hints[name])
        elif parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
            positional.append(_example(hints[name]))
        elif parameter.kind is parameter.VAR_POSITIONAL:
            positional += [3] * max(1, str(getattr(kind, "template", "")).count("{"))
    error = kind(*positional, **named)

    copy = pickle.loads(pickle.dumps(error))

    assert type(copy) is kind
    assert str(copy) == str(error) != ""
    assert repr(vars(copy)) == repr(vars(error))


def test_every_group_of_the_configuration_offers_a_choice() -> None:
    for group in GROUPS:
        assert list((ROOT / "conf" / group).glob("*.yaml")), f"conf/{group} is empty"
