"""The site: every page is in its menu, and it builds without a warning."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent


def load_site() -> ModuleType:
    spec = importlib.util.spec_from_file_location("site_of_docs", ROOT / "docs" / "build_site.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def entries(menu: Any) -> Iterator[str]:
    """The pages of a menu."""
    if isinstance(menu, str):
        yield menu
    for inner in menu.values() if isinstance(menu, dict) else menu if isinstance(menu, list) else ():
        yield from entries(inner)


def test_the_menu_has_every_page_once(tmp_path: Path) -> None:
    load_site().gather(tmp_path / "pages")
    pages = {path.relative_to(tmp_path / "pages").as_posix() for path in (tmp_path / "pages").rglob("*.md")}
    named = list(entries(yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"]))
    assert sorted(named) == sorted(pages)


def test_a_gathered_page_links_to_what_is_there(tmp_path: Path) -> None:
    load_site().gather(tmp_path / "pages")
    for page in (tmp_path / "pages").rglob("*.md"):
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text("utf-8")):
            assert (page.parent / target).is_file(), (page.name, target)


@pytest.mark.slow
@pytest.mark.skipif(
    not Path(sys.executable).with_name("zensical").exists(), reason="needs zensical: pip install 'pretrain-cli[docs]'"
)
def test_the_site_builds_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    load_site().gather(tmp_path / "build" / "pages")
    shutil.copyfile(ROOT / "mkdocs.yml", tmp_path / "mkdocs.yml")
    program = Path(sys.executable).with_name("zensical")
    done = subprocess.run([program, "build", "--strict"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    for page in (tmp_path / "build" / "site").rglob("*.html"):
        text = page.read_text("utf-8")
        assert re.findall(r'<(?:script|img|link)[^>]*(?:src|href)="https?://', text) == [], page
