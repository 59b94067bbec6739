"""Makes a release of a clean checkout: version, changelog, citation, commit and tag in one step.

python docs/release.py 0.2.0    or: make release VERSION=0.2.0

The tag is made here and pushed by a person: `git push --follow-tags`. The workflow "publish" does the rest.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from datetime import date
from pathlib import Path

ROOT = Path.cwd()
VERSION = re.compile(r"\d+\.\d+\.\d+")
PLACES = {
    "pretrain_cli/version.py": (r'__version__ = "[^"]*"', '__version__ = "{version}"'),
    "CITATION.cff": (r"(?m)^version: .*$", "version: {version}"),
    "CHANGELOG.md": (r"(?m)^## \S+, unreleased$", "## {version}, {day}"),
}
"""File → what is replaced in it, and by what."""


def main(version: str) -> int:
    """Release ``version``; returns the exit status. Nothing is written unless all of it can be."""
    if not VERSION.fullmatch(version):
        return _refuse(f"'{version}' is not a version such as 0.2.0")
    if _git("status", "--porcelain"):
        return _refuse("the checkout has changes: commit them first")
    if _git("tag", "--list", f"v{version}"):
        return _refuse(f"the tag v{version} exists")
    texts = {}
    for name, (pattern, new) in PLACES.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        texts[name], found = re.subn(pattern, new.format(version=version, day=date.today().isoformat()), text, count=1)
        if not found:
            return _refuse(f"{name} has nothing that matches {pattern}")
    for name, text in texts.items():
        (ROOT / name).write_text(text, encoding="utf-8", newline="\n")
    _git("commit", "--all", "--message", f"Release {version}")
    _git("tag", "--annotate", f"v{version}", "--message", f"ptk {version}")
    print(f"Committed and tagged v{version}. Publish it with: git push --follow-tags")
    return 0


def _refuse(reason: str) -> int:
    print(f"No release: {reason}.", file=sys.stderr)
    return 2


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("version")
    sys.exit(main(parser.parse_args().version))
