"""CI, `make check` and the README's test line run the same checks; tests share only what is in tests/support."""

from __future__ import annotations

import ast
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CALLS = [
    "ruff check",
    "ruff format --check",
    "mypy",
    "lint-imports --no-logo",
    "python docs/generate.py --check",
    "python docs/structure.py --check",
]
NAMES = ["style", "format", "types", "import rules", "generated pages", "list of files"]

needs_sh = pytest.mark.skipif(os.name == "nt", reason="tests/checks.sh needs a POSIX shell")


def check(folder: Path, failing: str = "") -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """The checks with programs that only write down how they were called; the call ``failing`` exits 7."""
    for program in {call.split()[0] for call in CALLS}:
        lines = [
            "#!/bin/sh",
            f'set -- "{program}" "$@"',
            f'echo "$*" >> "{folder}/called"',
            f'[ "$*" != "{failing}" ] || exit 7',
        ]
        (folder / program).write_text("\n".join(lines) + "\n")
        (folder / program).chmod(0o755)
    done = subprocess.run(["sh", "tests/checks.sh", str(folder)], cwd=ROOT, capture_output=True, text=True)
    return done, (folder / "called").read_text().splitlines()


@needs_sh
def test_every_check_runs(tmp_path: Path) -> None:
    done, called = check(tmp_path)
    assert (done.returncode, done.stderr, called) == (0, "", CALLS)


@needs_sh
@pytest.mark.parametrize("number", range(len(CALLS)), ids=NAMES)
def test_the_first_check_that_fails_ends_them_and_is_named(tmp_path: Path, number: int) -> None:
    done, called = check(tmp_path, CALLS[number])
    assert done.returncode == 7
    assert done.stderr.startswith(f"FAILED: {NAMES[number]} (") and "To fix it: " in done.stderr
    assert called == CALLS[: number + 1]


def test_ci_runs_the_command_that_the_readme_names() -> None:
    assert "sh tests/run.sh" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert "exec sh tests/run.sh </dev/null" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_make_check_and_the_test_command_run_the_same_checks() -> None:
    assert "sh tests/checks.sh $(BIN)" in (ROOT / "Makefile").read_text(encoding="utf-8")
    assert 'sh tests/checks.sh "$environment/bin"' in (ROOT / "tests" / "run.sh").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_what_tests_share_is_in_tests_support(path: Path) -> None:
    """No test module imports another test module or a conftest; `tests/faults/` has programs of its own."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    imported = [node.module or "." * node.level for node in nodes if isinstance(node, ast.ImportFrom)]
    imported += [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    shared = [name for name in imported if name.split(".")[0] in ("tests", "conftest", "")]
    programs = [name for name in shared if name.startswith("tests.faults.") and ".test_" not in name]
    assert [name for name in shared if not name.startswith("tests.support.") and name not in programs] == []
