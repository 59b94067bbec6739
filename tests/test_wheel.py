"""The wheel holds the package and nothing else, is small, and a release names one version everywhere."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from pretrain_cli.version import __version__

ROOT = Path(__file__).parent.parent
LARGEST_BYTES = 4_000_000
SOURCES = ("pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy by the build backend itself, in this environment: no network is needed."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        shutil.copyfile(ROOT / name, folder / name)
    shutil.copytree(ROOT / "pretrain_cli", folder / "pretrain_cli", ignore=shutil.ignore_patterns("__pycache__"))
    program = "import hatchling.build; print(hatchling.build.build_wheel('.'))"
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / done.stdout.strip().splitlines()[-1]


def test_the_wheel_is_small_and_holds_the_package_alone(wheel: Path) -> None:
    assert wheel.stat().st_size < LARGEST_BYTES
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names} == {"pretrain_cli", f"pretrain_cli-{__version__}.dist-info"}
    assert [name for name in names if "test" in Path(name).name.split("_")] == []


def test_the_wheel_has_every_file_of_the_package(wheel: Path) -> None:
    """The texts of the demo, the presets, and the mark for type checkers too."""
    package = ROOT / "pretrain_cli"
    wanted = {path.relative_to(ROOT).as_posix() for path in package.rglob("*") if path.is_file()}
    with zipfile.ZipFile(wheel) as archive:
        assert {name for name in wanted if "__pycache__" not in name} <= set(archive.namelist())


def test_the_wheel_has_the_command_and_all_extras(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        folder = f"pretrain_cli-{__version__}.dist-info"
        facts = Parser().parsestr(archive.read(f"{folder}/METADATA").decode())
        assert "ptk = pretrain_cli.__main__:main" in archive.read(f"{folder}/entry_points.txt").decode()
    assert {"documents", "http", "gpu", "llama-cpp"} <= set(facts.get_all("Provides-Extra") or ())


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A small repository with what a release changes."""
    for name in ("pretrain_cli/version.py", "CITATION.cff", "docs/release.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / name)
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## 0.1.0, unreleased\n\n- All of it.\n", encoding="utf-8")
    for line in (["init", "-q"], ["config", "user.name", "me"], ["config", "user.email", "me@example.org"]):
        subprocess.run(["git", *line], cwd=tmp_path, check=True)
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "all")
    return tmp_path


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def release(folder: Path, version: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "docs/release.py", version], cwd=folder, capture_output=True, text=True)


def test_a_release_is_one_step(checkout: Path) -> None:
    done = release(checkout, "0.2.0")
    assert (done.returncode, done.stderr) == (0, "")
    assert git(checkout, "describe") == "v0.2.0" and git(checkout, "status", "--porcelain") == ""
    assert '__version__ = "0.2.0"' in (checkout / "pretrain_cli" / "version.py").read_text("utf-8")
    assert "\nversion: 0.2.0\n" in (checkout / "CITATION.cff").read_text("utf-8")
    assert (checkout / "CHANGELOG.md").read_text("utf-8").startswith("# Changelog\n\n## 0.2.0, 2")
    again = release(checkout, "0.2.1")
    assert again.returncode == 2 and "CHANGELOG.md" in again.stderr
    assert git(checkout, "status", "--porcelain") == ""


def test_a_release_of_a_changed_checkout_or_a_taken_tag_is_refused(checkout: Path) -> None:
    assert "not a version" in release(checkout, "soon").stderr
    git(checkout, "tag", "v0.2.0")
    assert "the tag v0.2.0 exists" in release(checkout, "0.2.0").stderr
    (checkout / "CITATION.cff").write_text("", encoding="utf-8")
    assert "commit them first" in release(checkout, "0.3.0").stderr


def test_the_version_is_the_same_everywhere() -> None:
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text("utf-8")
    assert f"\n## {__version__}, " in (ROOT / "CHANGELOG.md").read_text("utf-8")
