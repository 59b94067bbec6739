"""How the package is built: what docs/structure.py measures, and what must hold."""

from __future__ import annotations

import functools
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
ARCHITECTURE = ROOT / "docs" / "contributing" / "architecture.md"


def load_structure() -> ModuleType:
    spec = importlib.util.spec_from_file_location("structure", ROOT / "docs" / "structure.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["structure"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


structure = load_structure()


@functools.cache
def modules(package: str) -> Any:
    """The modules of a package of this repository; parsing all takes a second."""
    return structure.read_package(ROOT, package)


FILES = {
    "__init__.py": "",
    "one.py": '"""Does one thing. Then more."""\nfrom typing import Any\nfrom house.wing.two import Room\n'
    "def f(a: Any, *b: list[Any]) -> None:\n    x: Any = a\n\nclass Door: ...\n",
    "wing/__init__.py": "",
    "wing/two.py": '"""Does more,\non two lines."""\nclass Room: ...\n\ndef g():\n    from ..one import f\n',
    "wing/one.py": '"""Imports for types alone."""\nfrom typing import TYPE_CHECKING\n'
    "if TYPE_CHECKING:\n    from house.other import Door\nclass Door: ...\n",
    "other.py": '"""Imports a file by its folder."""\nfrom house.wing import one\n',
}


@pytest.fixture
def house(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "house" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path


def test_the_measures_of_a_small_package(house: Path) -> None:
    modules = structure.read_package(house, "house")
    assert structure.circles(modules) == [["house.one", "house.wing.two"]]
    assert structure.untyped(modules) == 2 and structure.untyped_names(modules) == 3
    assert structure.repeated_classes(modules) == {"Door": ["one.py", "wing/one.py"]}
    assert structure.repeated_stems(modules) == {"one": ["one.py", "wing/one.py"]}
    assert structure.functions(modules)[0] == (2, "one.py: f")
    assert "files that hold code               4\n" in structure.report(modules)


def test_the_list_of_files_has_the_first_sentence_of_each(house: Path) -> None:
    text = structure.listing(structure.read_package(house, "house"), "house")
    assert text.splitlines() == [
        "### `house/`", "", "- `one.py`: Does one thing.", "- `other.py`: Imports a file by its folder.", "",
        "### `house/wing/`", "", "- `one.py`: Imports for types alone.", "- `two.py`: Does more, on two lines.",
    ]  # fmt: skip


def test_a_page_out_of_date_is_noticed_and_written(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = house / structure.PAGE
    page.parent.mkdir(parents=True)
    page.write_text(f"Before.\n\n{structure.BEGIN}\n{structure.END}\n\nAfter.\n")
    words = ["--repo", str(house), "--package", "house"]
    assert structure.main([*words, "--check"]) == 1
    assert "architecture.md is out of date: run `make docs`" in capsys.readouterr().err
    assert structure.main([*words, "--write"]) == 0 and structure.main([*words, "--check"]) == 0
    text = page.read_text()
    assert text.startswith("Before.\n") and text.endswith("\nAfter.\n") and "- `one.py`: Does one thing." in text


def test_no_modules_import_each_other() -> None:
    assert structure.circles(modules("pretrain_cli")) == []


@pytest.mark.parametrize("folder", ["pretrain_cli", "benchmarks", "docs", "tests"])
def test_every_file_states_what_it_does_and_does_not_ask(folder: str) -> None:
    sentences = {str(module.path): module.sentence for module in modules(folder) if module.lines}
    assert [path for path, sentence in sentences.items() if not sentence or sentence.endswith("?")] == []


def test_a_class_name_has_one_meaning() -> None:
    assert structure.repeated_classes(modules("pretrain_cli")) == {}
