"""The notebooks in examples/ run from the first cell to the last, and their cells show what they promise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from pretrain_cli.webpage import facts, fragment
from tests.support.browser import lay_out, needs_chromium
from tests.support.tiny import make_model

FOLDER = Path(__file__).parents[2] / "examples" / "notebooks"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a notebook in an empty folder, with other first values; gives the HTML and text of each code cell."""

    def run_one(name: str, **values: str) -> list[str]:
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        monkeypatch.setenv("PTK_TRAIN__DEVICE", "cpu")
        monkeypatch.setenv("PTK_EVALUATE__DEVICE", "cpu")
        monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
        monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
        notebook = nbformat.read(FOLDER / name, as_version=4)  # type: ignore[no-untyped-call]
        cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        for variable, value in values.items():
            lines = cells[0].source.splitlines()
            (place,) = [number for number, line in enumerate(lines) if line.startswith(f"{variable} = ")]
            lines[place] = f"{variable} = {value}"
            cells[0].source = "\n".join(lines)
        NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
        return [
            "".join(
                str(output.get("data", {}).get("text/html", "")) + output.get("text", "") for output in cell.outputs
            )
            for cell in cells
        ]

    return run_one


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.name)
def test_a_notebook_is_valid_and_names_no_machine(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    nbformat.validate(notebook)
    outputs = "".join(str(cell.get("outputs", "")) for cell in notebook.cells)
    assert "/root/" not in outputs and "/home/" not in outputs and "/work/" not in outputs
    assert "stderr" not in outputs


@needs_chromium
def test_words_and_values_stand_apart_where_jupyter_fixes_the_width_of_columns(tmp_path: Path) -> None:
    """Its style gives all columns the width that the first row asks for; of ours, that was 1 % for the words."""
    page = tmp_path / "page.html"
    cell = fragment([facts({"documents": "1", "tokenizer": "trained here"})])
    jupyter = "<style>.jp-RenderedHTMLCommon table{table-layout:fixed}</style>"
    words = '<p id="told"></p><script>const cells = [...document.querySelectorAll("td:first-child")];told.innerText = '
    measured = (
        words + "cells.every((cell) => cell.scrollWidth <= cell.clientWidth) ? 'apart' : 'over each other'</script>"
    )
    page.write_text(f'{jupyter}<div class="jp-RenderedHTMLCommon">{cell}</div>{measured}', "utf-8")
    assert lay_out(page, 800, tmp_path)["text"].endswith("apart")


@pytest.mark.slow
def test_the_first_model(run: Any) -> None:
    imports, prepared, trained, metrics, scores, sample, runs = run("first-model.ipynb", minutes="0.05")
    assert "tokens prepared" in prepared and "Run first finished" in trained
    assert imports == "" and "IProgress" not in prepared + trained
    assert "tokens_per_second" in metrics and "bits per byte on validation" in scores
    assert "<blockquote>" in sample and "second" in runs


@pytest.mark.slow
def test_a_base_is_continued(run: Any, tmp_path: Path) -> None:
    base = make_model(tmp_path / "tiny-base")
    values = {"base": f"{str(base)!r}", "minutes": "0.05", "prompt": "'Call me'"}
    _, prepared, trained, scores, frame, before, after = run("continue-a-base.ipynb", **values)
    assert "tokens prepared" in prepared and "Run continued finished" in trained
    assert "IProgress" not in prepared + trained + scores
    assert "compared with" in scores and "bits_per_byte" in frame
    assert "<blockquote>" in before and "<blockquote>" in after
