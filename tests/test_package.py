"""The package as a script uses it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import pretrain_cli

PAGE = Path(__file__).parent.parent / "docs" / "guides" / "python.md"
FAST = """
[data]
sequence_length = 32
[tokenizer]
vocab_size = 300
[train]
max_steps = 2
micro_batch = 2
device = "cpu"
precision = "fp32"
[model]
size = 2
[tracking]
report_to = "none"
[evaluate]
on = ["validation"]
samples = 0
[generate]
max_tokens = 4
"""
TEXT = "Call me Ishmael. Some years ago, never mind how long precisely, I thought I would sail about a little.\n"


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = ("torch", "transformers", "numpy", "pydantic", "rich", "typer")
    program = f"import sys, pretrain_cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", pretrain_cli.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert name in dir(pretrain_cli)
    assert name == "__version__" or getattr(pretrain_cli, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="pretrian"):
        pretrain_cli.pretrian  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.slow
def test_the_script_in_the_docs_goes_from_text_to_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert script is not None
    monkeypatch.chdir(tmp_path)
    Path("data.txt").write_text("".join(f"{number}: {TEXT}" for number in range(100)), encoding="utf-8")
    Path("ptk.toml").write_text(FAST, encoding="utf-8")
    exec(compile(script[1], str(PAGE), "exec"), {})
    assert re.search(r"^[\d,]+ tokens, 2 steps, \d\.\d\d bits per byte: ", capsys.readouterr().out, re.MULTILINE)
