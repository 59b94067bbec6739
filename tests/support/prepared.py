"""Fixtures with prepared rows for tests that train, made by the real prepare."""

from __future__ import annotations

import shutil
from importlib import resources

import pytest

from pretrain_cli.artifacts import Artifacts
from tests.support.runs import prepare_text


@pytest.fixture(scope="session")
def prose() -> str:
    return (resources.files("pretrain_cli.texts") / "demo.txt").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory, prose: str) -> Artifacts:
    return prepare_text(tmp_path_factory.mktemp("prepared"), prose[:24_000])


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory, prepared: Artifacts) -> Artifacts:
    """Prepared rows of the file's own: its tests give their runs names that other files may use too."""
    root = tmp_path_factory.mktemp("rows") / "artifacts"
    shutil.copytree(prepared.root, root)
    return Artifacts(root)
