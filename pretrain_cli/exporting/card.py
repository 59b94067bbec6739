"""What should a reader of the model know? A model card from the run's own records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pretrain_cli.artifacts import Artifacts, RunFolder, read_json

CURVE_POINTS = 8
LICENSE_TO_FILL = "license: # fill in, for example apache-2.0; it has to fit the base and the text"


def model_card(run: RunFolder, artifacts: Artifacts, address: str = "FOLDER") -> str:
    """Base, data, recipe, training, evaluation and how to load, as Markdown; the licence is left to be filled in.

    Args:
        run: whose records are told.
        artifacts: where its data was prepared.
        address: what a reader gives to ``from_pretrained``.
    """
    record = _read(run.record)
    sections = (
        [*_head(record), f"# {run.name}", "", _origin(record)],
        ["## Load", "", "```python", *_loading(address), "```"],
        ["## Training", "", *_training(record), "", *_curves(run)],
        ["## Data", "", *_data(record, _read(artifacts.manifest))],
        ["## Evaluation", "", *_evaluation(run)],
        ["## Recipe", "", "```toml", _recipe(run), "```"],
        ["A language model repeats what it was trained on, mistakes and biases included."],
    )
    return "\n\n".join("\n".join(lines) for lines in sections) + "\n"


def _head(record: dict[str, Any]) -> list[str]:
    """The block that the hub reads; ``base_model`` only where it names a model on the hub."""
    base = _base(record)
    on_hub = base.count("/") == 1 and not base.startswith((".", "/", "~")) and not Path(base).exists()
    lines = ["---", LICENSE_TO_FILL, "library_name: transformers", "pipeline_tag: text-generation"]
    return [*lines, *([f"base_model: {base}"] if on_hub else []), "tags: [pretraining, ptk]", "---", ""]


def _origin(record: dict[str, Any]) -> str:
    base = _base(record)
    return f"Continued from the base `{Path(base).name if Path(base).exists() else base}`." if base else "From scratch."


def _loading(address: str) -> list[str]:
    return [
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        f'model = AutoModelForCausalLM.from_pretrained("{address}")',
        f'tokenizer = AutoTokenizer.from_pretrained("{address}")',
        'ids = tokenizer("Once upon a time", return_tensors="pt")',
        "print(tokenizer.decode(model.generate(**ids, max_new_tokens=50)[0]))",
    ]


def _training(record: dict[str, Any]) -> list[str]:
    names = ("parameters", "steps", "tokens", "sequence_length", "device", "precision", "world_size")
    lines = []
    for name in (*names, "started", "ended"):
        value = record.get(name)
        if value is not None:
            shown = f"{value:,}".replace(",", " ") if isinstance(value, int) else value
            lines.append(f"- {name.replace('_', ' ')}: {shown}")
    versions = record.get("versions") or {}
    return [*lines, "- versions: " + ", ".join(f"{name} {version}" for name, version in versions.items())]


def _curves(run: RunFolder) -> list[str]:
    """A few lines of metrics.jsonl from first to last, and the picture where the run drew one."""
    lines = _metrics(run)
    if not lines:
        return []
    held_out = [line for line in lines if line.get("validation_loss") is not None] or lines
    last = len(held_out) - 1
    places = sorted({round(last * point / (CURVE_POINTS - 1)) for point in range(CURVE_POINTS)})
    rows = ["| step | tokens | training loss | held-out loss | bits per byte |", "| --- | --- | --- | --- | --- |"]
    for line in (held_out[place] for place in places):
        figures = (line.get(key) for key in ("loss", "validation_loss", "validation_bits_per_byte"))
        cells = " | ".join("" if figure is None else f"{figure:.4f}" for figure in figures)
        rows.append(f"| {line['step']} | {line.get('tokens', '')} | {cells} |")
    if (run.path / "curves.png").is_file():
        rows += ["", "![Loss, learning rate, gradient norm and speed by step](curves.png)"]
    return rows


def _data(record: dict[str, Any], manifest: dict[str, Any]) -> list[str]:
    """Of the data the run was trained on: prepared data that is another by now says nothing about it."""
    fingerprint = record.get("data_fingerprint", "unknown")
    lines = [f"- fingerprint: `{fingerprint}`"]
    if manifest.get("fingerprint") != fingerprint:
        return [*lines, "- its sources aren't known any more: the artifact folder holds other data by now"]
    for entry in manifest.get("inputs", []):
        lines.append(f"- file: {Path(str(entry.get('path', '?'))).name}, {entry.get('size', 0)} bytes, "
                     f"hash `{entry.get('hash', '?')}`")  # fmt: skip
    for name, counts in (manifest.get("sources") or {}).items():
        told = ", ".join(f"{count} {kind}" for kind, count in counts.items()) if isinstance(counts, dict) else counts
        lines.append(f"- source {name}: {told}")
    return lines


def _evaluation(run: RunFolder) -> list[str]:
    models = _read(run.evaluation / "report.json").get("models") or []
    if not models:
        return ["Not evaluated: `ptk evaluate`."]
    rows = ["| model | text | bits per byte | perplexity | accuracy |", "| --- | --- | --- | --- | --- |"]
    for model in models:
        for text in model["texts"]:
            figures = " | ".join(f"{text[key]:.4f}" for key in ("bits_per_byte", "perplexity", "accuracy"))
            rows.append(f"| {model['name']} | {text['name']} | {figures} |")
    return rows


def _recipe(run: RunFolder) -> str:
    return run.config.read_text("utf-8").strip() if run.config.is_file() else "# not recorded"


def _metrics(run: RunFolder) -> list[dict[str, Any]]:
    if not run.metrics.is_file():
        return []
    lines = []
    for text in run.metrics.read_text("utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:  # half a line, as a kill leaves it
            continue
    return [line for line in lines if isinstance(line, dict) and "step" in line]


def _base(record: dict[str, Any]) -> str:
    base = record.get("base") or ""
    return str(base.get("name", "")) if isinstance(base, dict) else str(base)


def _read(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}
