"""A base with and without an extended vocabulary, on one text: `python benchmarks/vocabulary.py TEXT --base smollm2`.

Each line is a real `ptk prepare`, `train` for the same minutes and `evaluate`, in processes of their own: tokens a byte
of the prepared text, held-out bits per byte of it and of general English, both also against the base; steps and tokens
of the training.

    plain       the base's own tokenizer
    auto        --extend-vocab auto, new rows start as the mean of their pieces
    rate N      the same, new rows at N times the rate
    first S     the same, new rows alone for the first share S of the run
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from learning import ptk

CELLS: dict[str, tuple[str, list[str]]] = {
    "plain": ("0", []),
    "auto": ("auto", []),
    "rate 5": ("auto", ["--set", "train.new_token_rate=5"]),
    "first 0.2": ("auto", ["--set", "train.new_tokens_first=0.2"]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text")
    parser.add_argument("--base", default="smollm2")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--sample", type=int, default=20_000, help="bytes of each text that are scored")
    parser.add_argument("--method", default="auto")
    parser.add_argument("--cells", default=",".join(CELLS), help=f"of {', '.join(CELLS)}")
    parser.add_argument("--folder", type=Path, help="keeps the artifacts; default: a temporary folder")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as spare:
        root = asked.folder or Path(spare)
        heads = ("tokens/byte", "text", "general", "gain", "lost", "steps", "tokens")
        print(f"{'':<10}" + "".join(f"{head:>12}" for head in heads))
        for name in asked.cells.split(","):
            extend, settings = CELLS[name]
            folder = root / ("plain" if extend == "0" else "extended")
            words = [asked.text, "--base", asked.base, "--set", f"tokenizer.extend_vocab={extend}"]
            prepared = ptk("prepare", *words, "--artifacts", str(folder))
            words = ["--max-minutes", str(asked.minutes), "--method", asked.method, "--run", name.replace(" ", "-")]
            words += ["--set", "train.save_steps=0", "--set", "train.eval_steps=0", "--set", "train.compile=false"]
            run = ptk("train", *words, *settings, "--set", "tracking.report_to=none", "--artifacts", str(folder))
            words = ["--set", "evaluate.samples=0", "--set", f"evaluate.sample={asked.sample}"]
            models = ptk("evaluate", run["run"], *words, "--artifacts", str(folder))["models"]
            own, base = ({text["name"]: text["bits_per_byte"] for text in model["texts"]} for model in models)
            print(
                f"{name:<10}{prepared['tokens'] / prepared['text_bytes']:>12.3f}{own['validation']:>12.4f}"
                f"{own['general']:>12.4f}{base['validation'] - own['validation']:>12.4f}"
                f"{own['general'] - base['general']:>12.4f}{run['steps']:>12}{run['tokens']:>12}",
                flush=True,
            )


if __name__ == "__main__":
    main()
