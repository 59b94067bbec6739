"""Builds the site: gathers the pages of docs/ and of the root into one folder, and runs zensical on it.

python docs/build_site.py                build into build/site; fails at a link that leads nowhere
python docs/build_site.py --gather       only gather the pages, into build/pages
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = Path("build", "pages")
FROM_ROOT = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing/how-to.md",
    "SECURITY.md": "contributing/security-policy.md",
    "CODE_OF_CONDUCT.md": "contributing/code-of-conduct.md",
    "AGENTS.md": "agents.md",
}
"""Page of the repository's root → its place in the site."""
FOLDERS = ("examples",)
"""Copied as files: pages link to what is in them."""
LINK = re.compile(r"(!?\[(?:[^\]\[]|\[[^\]]*\])*\])\((?!https?:|#|mailto:)([^)#\s]+)(#[^)]*)?\)")


def gather(target: Path) -> None:
    """Put all pages into ``target``, with links that lead to where each is now."""
    shutil.rmtree(target, ignore_errors=True)
    places = {ROOT / name: target / place for name, place in FROM_ROOT.items() if (ROOT / name).is_file()}
    for file in sorted((ROOT / "docs").rglob("*")):
        if file.is_file() and file.suffix != ".py" and "__pycache__" not in file.parts:
            places[file] = target / file.relative_to(ROOT / "docs")
    for folder in FOLDERS:
        for file in sorted((ROOT / folder).rglob("*")):
            if file.is_file():
                places[file] = target / file.relative_to(ROOT)
    for source, place in places.items():
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.suffix == ".md":
            place.write_text(_moved(source, place, places), encoding="utf-8")
        else:
            shutil.copyfile(source, place)


def _moved(source: Path, place: Path, places: dict[Path, Path]) -> str:
    """The page's text; a link to a file that the site doesn't have becomes its words alone."""

    def lead(found: re.Match[str]) -> str:
        words, name, anchor = found[1], found[2], found[3] or ""
        goal = Path(os.path.normpath(source.parent / name))
        if not goal.exists():
            raise SystemExit(f"{source.relative_to(ROOT)} links to {name}, which isn't there.")
        if goal not in places:
            return words.strip("![]")
        return f"{words}({Path(os.path.relpath(places[goal], place.parent)).as_posix()}{anchor})"

    return LINK.sub(lead, source.read_text(encoding="utf-8"))


def main(words: list[str]) -> int:
    """Gather, and build; returns the exit status."""
    gather(ROOT / PAGES)
    if "--gather" in words:
        return 0
    return subprocess.run(["zensical", "build", "--clean", "--strict"], cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
