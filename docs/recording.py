"""Records completion as people see it: keys typed into a real bash inside tmux, the screen as SVG.

python docs/recording.py     needs tmux, bash and `ptk` beside this Python
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pictures
from rich.text import Text

TYPED = (
    ("ptk tr", 1), ("--size m", 2), ("ini --set train.sched", 1), ("", 2), ("cos", 1), ("--preset ", 2), ("\n", 0),
    ("ptk evaluate first@", 3),
)  # fmt: skip
"""What is typed, and how often Tab is pressed after it: twice shows what there is to choose from."""
SETTLED_S = 1.0
ROWS = 20


def tmux(*words: str) -> str:
    """What tmux prints."""
    return subprocess.run(["tmux", "-L", "ptk-recording", *words], capture_output=True, text=True, check=True).stdout


def main() -> None:
    """Type, and draw the screen."""
    binaries = Path(sys.executable).parent
    with tempfile.TemporaryDirectory() as name:
        run = Path(name, "artifacts", "runs", "first")
        for step in ("step-000050", "step-000100"):
            (run / "checkpoints" / step).mkdir(parents=True)
        (run / "run.json").write_text("{}", encoding="utf-8")
        asked = {**os.environ, "_PTK_COMPLETE": "source_bash"}
        script = subprocess.run([binaries / "ptk"], env=asked, capture_output=True, text=True, check=True).stdout
        Path(name, "rc").write_text(f'PS1="$ "\nPATH={binaries}:$PATH\n{script}\n', encoding="utf-8")
        size = ("-x", str(pictures.WIDTH), "-y", str(ROWS))
        tmux("new-session", "-d", *size, "-c", name, f"bash --noprofile --rcfile {name}/rc -i")
        try:
            time.sleep(SETTLED_S)
            for keys, tabs in TYPED:
                tmux("send-keys", "C-c") if keys == "\n" else tmux("send-keys", "-l", "--", keys)
                for _ in range(tabs):
                    tmux("send-keys", "Tab")
                    time.sleep(SETTLED_S)
            screen = tmux("capture-pane", "-e", "-p")
        finally:
            tmux("kill-server")
    console = pictures.recorder()
    console.print(Text.from_ansi(screen.rstrip()))
    pictures.save(console, pictures.IMAGES / "completion.svg", "Tab")


if __name__ == "__main__":
    main()
