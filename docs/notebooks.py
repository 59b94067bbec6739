"""Runs the notebooks in examples/ and keeps their outputs in them; then takes their pictures.

python docs/notebooks.py [NAME]      about ten minutes; the pictures need nbconvert and Chromium
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from pictures import IMAGES, screenshot

FOLDER = Path(__file__).parents[1] / "examples" / "notebooks"
PICTURES = {"first-model": (950, 1360), "continue-a-base": (950, 1700)}
"""Notebook → width and height of its picture, in pixels, from the first heading that isn't the title."""
BEGIN = """<script>
for (const cell of document.querySelectorAll(".jp-Cell")) { if (cell.querySelector("h2")) break; cell.remove(); }
</script>"""
"""Leaves out what is above that heading."""


def run(path: Path) -> None:
    """Execute a notebook in an empty folder, and write it with its outputs, without paths or times of this machine."""
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    with tempfile.TemporaryDirectory() as name:
        os.environ.update(IPYTHONDIR=f"{name}/.ipython", JUPYTER_RUNTIME_DIR=f"{name}/.runtime", WANDB_MODE="offline")
        NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": name}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    nbformat.write(notebook, path)  # type: ignore[no-untyped-call]
    path.write_text(path.read_text("utf-8").replace(sysconfig.get_path("purelib"), "site-packages"), "utf-8")
    print(f"wrote {path}")


def take_picture(path: Path, width: int, height: int) -> None:
    """A notebook with its outputs, as Jupyter shows it."""
    with tempfile.TemporaryDirectory() as name:
        page = Path(name, "page.html")
        words = (sys.executable, "-m", "nbconvert", "--to", "html", "--output", str(page), str(path))
        subprocess.run(words, check=True, capture_output=True)
        page.write_text(page.read_text("utf-8").replace("</body>", f"{BEGIN}</body>"), "utf-8")
        screenshot(page, IMAGES / f"notebook-{path.stem}.png", width, height)


if __name__ == "__main__":
    for name, (width, height) in PICTURES.items():
        if name in (sys.argv[1:] or PICTURES):
            run(FOLDER / f"{name}.ipynb")
            take_picture(FOLDER / f"{name}.ipynb", width, height)
