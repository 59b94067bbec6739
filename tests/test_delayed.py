"""A delayed package is imported with the first thing that is asked of it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pretrain_cli.delayed import delay


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    folder = tmp_path / "heavy_package"
    folder.mkdir()
    (folder / "__init__.py").write_text("from heavy_package import part\nvalue = part.value + 1\n")
    (folder / "part.py").write_text("import heavy_package\nvalue = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("heavy_package", "heavy_package.part"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return folder.name


def test_an_import_imports_nothing_until_something_is_asked_for(package: str) -> None:
    delay(package)
    import heavy_package  # type: ignore[import-not-found]

    assert heavy_package.__file__ and "heavy_package.part" not in sys.modules
    assert heavy_package.value == 2 and "heavy_package.part" in sys.modules
    assert type(heavy_package) is type(sys)


def test_a_submodule_imports_the_package_first(package: str) -> None:
    delay(package)
    from heavy_package.part import value

    assert value == 1 and sys.modules[package].value == 2


def test_a_package_that_breaks_says_so_and_one_that_is_missing_stays_missing(package: str, tmp_path: Path) -> None:
    (tmp_path / package / "__init__.py").write_text("raise RuntimeError('no library')")
    delay(package)
    import heavy_package

    with pytest.raises(RuntimeError, match="no library"):
        heavy_package.value  # noqa: B018
    delay("no_such_package")
    with pytest.raises(ImportError):
        import no_such_package  # type: ignore[import-not-found]  # noqa: F401
