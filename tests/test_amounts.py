"""More processes or threads than a machine could start are refused at once, with its numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.load import load_config
from pretrain_cli.data.prepare import prepare
from pretrain_cli.errors import ConfigError
from pretrain_cli.processes import available_cores, check_amount
from pretrain_cli.training.processes.launch import wanted_processes
from pretrain_cli.training.run import train


@pytest.mark.parametrize("key", ["train.workers", "train.threads", "train.processes", "data.workers"])
def test_a_thousand_of_anything_is_refused_before_any_work(tmp_path: Path, key: str) -> None:
    (tmp_path / "a.txt").write_text("text")
    config = load_config(flags={key: 1000, "train.device": "cpu", "data.inputs": [str(tmp_path / "a.txt")]}).config
    with pytest.raises(ConfigError, match=rf"{key} = 1,000 is too many: this machine has .* core") as caught:
        if key == "data.workers":
            prepare(config, Artifacts(tmp_path / "artifacts"))
        elif key == "train.processes":
            wanted_processes(config.train)
        else:
            train(config, Artifacts(tmp_path / "artifacts"))
    assert caught.value.hint.endswith(f"--set {key}=auto")
    assert not (tmp_path / "artifacts").exists()


def test_what_a_machine_can_do_is_not_refused() -> None:
    for amount in ("auto", 0, 1, available_cores(), 4 * available_cores(), 16):
        check_amount("train.workers", amount)
