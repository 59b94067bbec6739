"""A page as a real browser lays it out: Chromium without a window, no network, the width of a phone or a desk."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
needs_chromium = pytest.mark.skipif(not CHROMIUM, reason="no Chromium here: apt-get install chromium")

MEASURE = """
const frame = document.querySelector("iframe"), errors = [];
frame.onload = () => {
  const page = frame.contentDocument, root = page.documentElement, seen = (element) => element.getBoundingClientRect();
  const shown = {
    width: frame.contentWindow.innerWidth, scroll_width: root.scrollWidth,
    first: page.body.innerText.trim().split("\\n").filter((line) => line).slice(0, 3),
    headings: [...page.querySelectorAll("h2")].map((heading) => heading.innerText),
    charts: [...page.querySelectorAll("svg")].map((svg) => [seen(svg).width, seen(svg).height, svg.textContent.length]),
    small: [...page.querySelectorAll("td, th, p, b, small, pre")].filter(
      (element) => parseFloat(frame.contentWindow.getComputedStyle(element).fontSize) < 10).length,
    verdict_top: page.querySelector(".verdict") ? seen(page.querySelector(".verdict")).top : null,
    loaded: frame.contentWindow.performance.getEntriesByType("resource").length,
    text: page.body.innerText,
  };
  const told = document.createElement("pre");
  told.id = "told"; told.textContent = JSON.stringify(shown); document.body.append(told);
};
"""


def lay_out(page: Path, width: int, folder: Path) -> dict[str, Any]:
    """What ``page`` looks like at ``width`` pixels: its widths, what is first, its headings, charts and text."""
    outer = folder / f"outer-{width}.html"
    content = html.escape(page.read_text("utf-8"))
    frame = f'<iframe style="border:0;width:{width}px;height:800px" srcdoc="{content}"></iframe>'
    body = f'<body style="margin:0">{frame}<script>{MEASURE}</script>'
    outer.write_text(f'<!doctype html><meta charset="utf-8">{body}', "utf-8")
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}",
         "--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=5000", "--window-size=1400,900", "--dump-dom",
         f"file://{outer}"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    told = re.search(r'<pre id="told">(.*?)</pre>', done.stdout, re.DOTALL)
    assert told, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(html.unescape(told[1]))
    return found
