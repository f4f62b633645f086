"""What a submitted job would send is known before it is sent."""

from __future__ import annotations

import zipfile

import pytest

from conf.errors import UserError
from jobs import upload
from jobs.upload import check_upload, is_ignored


@pytest.fixture
def project(tmp_path):
    for name in upload.NEEDED:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text('"""A package."""\n')
    (tmp_path / ".gitignore").write_text("# caches\n__pycache__/\n/runs/\n*.env\n")
    (tmp_path / ".rayignore").write_text("/data/\n")
    return tmp_path


def test_ignored_files_are_listed_and_not_counted(project):
    for folder in ("runs", "data", ".git"):
        (project / folder).mkdir()
        (project / folder / "big.bin").write_bytes(b"x" * 10_000)
    found = check_upload(project)

    assert found.num_files == 6  # four packages and the two ignore files
    assert found.left_out == [".git", "data", "runs"]


def test_this_project_is_small_enough_and_ships_its_toy_models(repo_root):
    found = check_upload(repo_root)
    assert found.size_bytes < 40 * 1024**2
    assert ".venv" in found.left_out or not (repo_root / ".venv").exists()
    assert "jobs" not in found.left_out


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("server.pem", "certificate"),
        ("id_rsa", "key"),
        ("notes.txt", "-----BEGIN RSA " + "PRIVATE KEY-----"),
        ("conf/judge.yaml", "key: sk-" + "a" * 30),
        ("aws.ini", "AKIA" + "A" * 16),
    ],
)
def test_what_looks_like_a_secret_stops_the_upload(project, name, text):
    (project / name).write_text(text)
    with pytest.raises(UserError, match=r"looks like a secret.*\.rayignore"):
        check_upload(project)


def test_an_ignored_secret_is_no_secret(project):
    (project / "production.env").write_text("KEY=sk-" + "a" * 30)
    assert "production.env" in check_upload(project).left_out


def test_an_upload_above_the_limit_says_both_numbers(project, monkeypatch):
    monkeypatch.setattr(upload, "LIMIT_BYTES", 1024**2)
    noise = bytes(range(256)) * 4
    import hashlib

    body = b"".join(hashlib.sha256(noise + i.to_bytes(4, "big")).digest() for i in range(70_000))
    (project / "weights.bin").write_bytes(body)
    with pytest.raises(UserError, match="the upload is 2 MiB and Ray takes 1"):
        check_upload(project)


def test_a_folder_without_the_project_is_refused(tmp_path):
    with pytest.raises(UserError, match="no package conf"):
        check_upload(tmp_path)


@pytest.mark.parametrize(
    ("name", "is_folder", "rules", "expected"),
    [
        ("a/__pycache__", True, [], True),
        ("runs", True, ["/runs/"], True),
        ("jobs/runs", True, ["/runs/"], False),
        ("x.env", False, ["*.env"], True),
        ("keep.env", False, ["*.env", "!keep.env"], False),
        ("build", False, ["build/"], False),
    ],
)
def test_the_last_rule_that_matches_decides(name, is_folder, rules, expected):
    assert is_ignored(name, is_folder=is_folder, rules=rules) is expected


def test_a_key_of_this_shell_is_found_wherever_it_lies(project, monkeypatch):
    """Keys of R2 are plain hexadecimal: only their value tells them from a digest."""
    secret = "0123456789abcdef" * 4
    (project / "tests").mkdir()
    (project / "tests" / "notes.yaml").write_text(f"bucket: {secret}\n")
    assert check_upload(project).num_files == 7
    monkeypatch.setenv("R2_SECRET_ACCESS_KEY", secret)
    with pytest.raises(UserError, match=r"tests/notes.yaml looks like a secret"):
        check_upload(project)
    monkeypatch.setenv("R2_SECRET_ACCESS_KEY", "short")
    assert check_upload(project).num_files == 7


def test_a_project_below_a_folder_called_tests_is_searched_all_the_same(tmp_path):
    folder = tmp_path / "tests" / "project"
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("AKIA" + "A" * 16)
    assert upload.is_secret(folder / "notes.txt", folder)


def test_a_package_that_is_ignored_by_mistake_is_named_before_it_is_missing(project):
    (project / ".gitignore").write_text("storage/\n")
    with pytest.raises(UserError, match=r"storage is named in .gitignore or .rayignore"):
        check_upload(project)


def test_what_is_counted_is_what_ray_would_zip(repo_root, tmp_path):
    from ray._private.runtime_env import packaging

    rules = upload.ignore_rules(repo_root)
    ours = [
        path.relative_to(repo_root).as_posix()
        for path in upload.walk(repo_root, repo_root, rules, [])
    ]
    package = tmp_path / "package.zip"
    packaging.create_package(
        str(repo_root),
        package,
        include_gitignore=True,
        excludes=[*upload.ALWAYS_LEFT_OUT],
    )
    with zipfile.ZipFile(package) as made:
        theirs = {name for name in made.namelist() if not name.endswith("/")}
    assert set(ours) == theirs
