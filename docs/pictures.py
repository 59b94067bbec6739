"""Makes the pictures of the docs from real runs: the live view, scores, runs, colored probabilities, and the report.

python docs/pictures.py [FOLDER]     about three minutes; the report needs Chromium, and is left out without it
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.text import Text

from pretrain_cli.cli import app, progress
from pretrain_cli.cli.progress import LiveProgress

IMAGES = Path(__file__).parent / "images"
TEXT = Path(__file__).parents[1] / "pretrain_cli" / "texts" / "demo.txt"
WIDTH = 100
TAKEN_AT = 0.7
"""Share of a training after which the live view is drawn."""
FONTS = re.compile(r"\s*@font-face \{.*?\}\n", re.DOTALL)
"""What rich would load from a server."""
ENVIRONMENT = {"PTK_TRACKING__REPORT_TO": "none", "COLUMNS": str(WIDTH), "OMP_NUM_THREADS": "1", "FORCE_COLOR": "1"}
TRAIN = (
    "train",
    "--max-steps",
    "100",
    "--run",
    "first",
    "--set",
    'train.sample_prompts=["Call me"]',
    "--size",
    "micro",
)
COMMANDS = {
    "evaluate": ("evaluate", "first", "--on", "validation", "--on", "general", "--sample", "20000"),
    "runs": ("runs", "list"),
    "generate": ("generate", "Call me", "--probabilities", "--max-tokens", "60", "--model", "first"),
}


class Drawn(LiveProgress):
    """The live view, drawn once into a file when most of the training is done.

    Args:
        path: the picture.
    """

    def __init__(self, path: Path) -> None:
        self._recorder = recorder()
        super().__init__(self._recorder)
        self._path = path

    def stage(self, name: str, total: float | None = None, unit: str = "") -> None:
        self._view.start(name, total, unit)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        super().log(step, values)
        if not self._path.exists() and self._view.completed >= TAKEN_AT * (self._view.total or float("inf")):
            self._recorder.print(self._view)
            save(self._recorder, self._path, f"ptk {' '.join(TRAIN[:3])}")


def recorder() -> Console:
    """A terminal that remembers what is printed."""
    return Console(
        record=True, width=WIDTH, force_terminal=True, color_system="truecolor", file=io.StringIO(), highlight=False
    )


def save(console: Console, path: Path, title: str) -> None:
    """What ``console`` remembers as SVG, in the reader's own font."""
    path.write_text(FONTS.sub("", console.export_svg(title=title)), encoding="utf-8")
    print(f"wrote {path}")


def draw_live_view(path: Path) -> None:
    """A training in this process, whose view is drawn."""
    path.unlink(missing_ok=True)
    original = progress.make_progress
    progress.make_progress = lambda *_args, **_keywords: Drawn(path)
    try:
        if app.run([*TRAIN, "--plain"]):
            raise SystemExit("The training failed.")
    finally:
        progress.make_progress = original


def draw_command(name: str, words: tuple[str, ...]) -> None:
    """What a command prints in a terminal."""
    done = subprocess.run([sys.executable, "-m", "pretrain_cli", *words], capture_output=True, text=True, check=True)
    console = recorder()
    console.print(Text.from_ansi(done.stdout.rstrip()))
    quoted = [f'"{word}"' if " " in word else word for word in words]
    save(console, IMAGES / f"{name}.svg", f"ptk {' '.join(quoted)}")


def screenshot(page: Path, picture: Path, width: int, height: int) -> None:
    """The top of a page, as Chromium shows it."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        print(f"no Chromium: {picture} is left as it is")
        return
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size={width},{height}")
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [browser, *options, f"--user-data-dir={profile}", f"--screenshot={picture}", page.resolve().as_uri()],
            check=True,
            capture_output=True,
        )
    print(f"wrote {picture}")


def main(folder: Path) -> None:
    """Prepare and train in ``folder``, and draw what is seen."""
    os.environ.update(ENVIRONMENT)
    shutil.copyfile(TEXT, folder / "moby-dick.txt")
    os.chdir(folder)
    if app.run(["prepare", "moby-dick.txt", "--quiet"]):
        raise SystemExit("prepare failed.")
    draw_live_view(IMAGES / "train.svg")
    for name, words in COMMANDS.items():
        draw_command(name, words)
    report = Path("artifacts", "runs", "first", "evaluation", "report.html")
    screenshot(report, IMAGES / "first-report.png", 1000, 1150)


if __name__ == "__main__":
    if sys.argv[1:]:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as name:
            main(Path(name))
