"""The command that installs what is missing is the one of the environment that ptk runs in."""

from __future__ import annotations

import shutil
import sys
import sysconfig
from pathlib import Path

import pytest

from pretrain_cli.optional import to_install


def test_each_kind_of_environment_has_its_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "archive-v0" / "pretrain-cli"
    here.mkdir(parents=True)
    monkeypatch.setattr(sys, "prefix", str(here))
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    (tmp_path / "pip").mkdir()
    assert to_install(extra="lora") == 'pip install "pretrain-cli[lora]"'
    (tmp_path / "pip").rmdir()
    assert to_install("gcsfs") == "pip install gcsfs"  # an environment without pip that neither of them made
    (here / "pyvenv.cfg").write_text("implementation = CPython\nuv = 0.9.0\n", encoding="utf-8")
    assert to_install("gcsfs").startswith("uvx --with gcsfs ")
    tool = tmp_path / "tools" / "pretrain-cli"
    shutil.copytree(here, tool)
    monkeypatch.setattr(sys, "prefix", str(tool))
    assert to_install("gcsfs") == f"uv pip install --python {tool} gcsfs"
    (tool / "pipx_metadata.json").write_text("{}", encoding="utf-8")
    assert to_install(extra="lora") == 'pipx runpip pretrain-cli install "pretrain-cli[lora]"'
