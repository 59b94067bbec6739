"""The docs say what the code does: generated pages are current, links lead somewhere, commands exist."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer
import yaml

from pretrain_cli.cli.commands import make_app

ROOT = Path(__file__).parent.parent
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


def test_the_generated_reference_is_current() -> None:
    done = subprocess.run([sys.executable, "docs/generate.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_and_option_in_a_shell_block_exists(page: Path) -> None:
    commands = typer.main.get_command(make_app()).commands  # type: ignore[attr-defined]
    for block in re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        for name, rest in re.findall(r"(?:^|[ /])ptk ([a-z]+)([^&|#\n]*)", block):
            assert name in commands, name
            leaves = [commands[name], *getattr(commands[name], "commands", {}).values()]
            known = {option for leaf in leaves for parameter in leaf.params for option in parameter.opts}
            for option in re.findall(r"(?<= )--[a-z-]+", rest):
                assert option in known, f"{name} {option}"


def test_the_page_about_the_functions_shows_their_arguments() -> None:
    page = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    assert "*inputs: str | Path," in page and "run: str | None = None," in page


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/contributing/architecture.md"])
def test_files_that_a_page_for_developers_names_exist(page: str) -> None:
    """A name counts from the folder that was named last, or from one above it, up to the root."""
    folder = ROOT / "pretrain_cli"
    for name in re.findall(r"`([\w./-]+\.py|[\w./-]+/)`", (ROOT / page).read_text(encoding="utf-8")):
        above = [place for place in (folder, *folder.parents, ROOT / "pretrain_cli") if place.is_relative_to(ROOT)]
        places = [place for place in above if (place / name).exists()]
        assert places or not name.endswith(".py"), name
        if places:
            folder = (places[0] / name).parent if name.endswith(".py") else places[0] / name


def test_every_dependency_is_explained_and_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    explained = (ROOT / "docs" / "contributing" / "dependencies.md").read_text(encoding="utf-8")
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8").lower().replace("_", "-")
    for extra, requirements in {"": project["dependencies"], **extras}.items():
        assert f"`{extra}`" in explained or not extra, extra
        for requirement in requirements:
            name = re.split(r"[^\w-]", requirement)[0].lower()
            assert re.search(rf"\b{name}\b", explained), name
            assert f"\n{name}==" in pinned or extra in ("lm-eval", "gpu", "docs"), (
                name
            )  # those aren't part of the tests


def test_the_architecture_page_names_every_folder() -> None:
    page = (ROOT / "docs" / "contributing" / "architecture.md").read_text(encoding="utf-8")
    package = ROOT / "pretrain_cli"
    parts = [f"{entry.name}/" if entry.is_dir() else entry.name for entry in package.iterdir() if entry.name[0] != "_"]
    assert [part for part in parts if f"`{part}`" not in page] == []


def test_the_tested_versions_name_no_machine() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()[1:]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line) for line in lines)
    assert "torch==2.13.0" in lines


def test_the_skill_is_one_that_agents_find() -> None:
    """Its name is its folder's, and its front matter says in one paragraph when to use it."""
    page = ROOT / "skills" / "ptk" / "SKILL.md"
    _, front, text = page.read_text(encoding="utf-8").split("---\n", 2)
    told = yaml.safe_load(front)
    assert told["name"] == page.parent.name and 50 < len(told["description"]) < 1024
    assert "ptk prepare data.txt --json" in text and "](" not in text
