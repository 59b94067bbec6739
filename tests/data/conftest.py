"""Tokenizers and a prepare that test_*.py here share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.model import Config
from pretrain_cli.data.prepare import prepare
from tests.support.preparing import Preparing, check_ledger, train_byte_level, train_sentencepiece_style


@pytest.fixture(scope="session")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_byte_level(tmp_path_factory.mktemp("byte-level"))


@pytest.fixture(scope="session")
def sentencepiece_style(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_sentencepiece_style(tmp_path_factory.mktemp("sentencepiece"))


@pytest.fixture
def preparing(tmp_path: Path, byte_level: Path) -> Preparing:
    """Prepares inputs into a folder, and checks what must hold for all of them: the ledger adds up, text comes back."""

    def run(*inputs: Path | str, into: str = "artifacts", tokenizer: Path = byte_level, **data: Any) -> Any:
        artifacts = Artifacts(tmp_path / into)
        settings = {
            "inputs": [str(path) for path in inputs],
            "sequence_length": 32,
            "packing": "best-fit",
            "add_bos": True,
            **data,
        }
        config = Config.model_validate({"tokenizer": {"path": str(tokenizer)}, "data": settings})
        result = prepare(config, artifacts)
        check_ledger(artifacts)
        return result, artifacts

    return run
