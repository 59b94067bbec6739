"""What should a reader of the model know? A model card from the run's own records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pretrain_cli.artifacts import Artifacts, RunFolder, read_json, read_lines
from pretrain_cli.model.names import NamedModel, recorded_base

CURVE_POINTS = 8
LICENSE_TO_FILL = "license: unknown # fill in, for example apache-2.0; it has to fit the base and the text"
"""The hub knows the word; it refuses a field that is empty."""


def model_card(named: NamedModel, artifacts: Artifacts, how_to_load: list[str]) -> str:
    """Base, data, recipe, training, evaluation and how to load, as Markdown; the licence is left to be filled in.

    Args:
        named: a run or one of its checkpoints; its records are told.
        artifacts: where its data was prepared.
        how_to_load: lines made by `loading`.
    """
    run = named.run
    assert run is not None
    record, manifest = _read(run.record), _read(artifacts.manifest)
    sections = (
        [*_head(record, how_to_load), f"# {named.name}", "", _origin(record, manifest), *_which(named, record)],
        ["## Load", "", *how_to_load],
        ["## Training", "", *_training(record), "", *_curves(run)],
        ["## Data", "", *_data(record, manifest)],
        ["## Evaluation", "", *_evaluation(run)],
        ["## Recipe", "", "<details><summary>Every setting of the run</summary>", "", "```toml", _recipe(run), "```"],
        ["</details>"],
        ["A language model repeats what it was trained on, mistakes and biases included."],
    )
    return "\n\n".join("\n".join(lines) for lines in sections) + "\n"


def loading(to: str, address: str, file: str, name: str) -> list[str]:
    """How a reader opens what `ptk export` wrote, as Markdown.

    Args:
        to: "hf", "gguf" or "ollama".
        address: what a reader gives to ``from_pretrained``: a repository or a folder.
        file: of the weights, for gguf and ollama.
        name: what the model is called.
    """
    if to == "ollama":
        made = f"ollama create {name.replace('@', '-').lower()} -f Modelfile"
        return ["```sh", made, f'ollama run {name.replace("@", "-").lower()} "Once upon a time"', "```"]
    if to == "gguf":
        by_llama = f'llama-cli -m {file} -no-cnv -n 50 -p "Once upon a time"'
        by_ptk = f'ptk generate "Once upon a time" --model {file} --engine llama.cpp'
        return ["```sh", by_llama, by_ptk, "```"]
    return [
        "```python",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        f'model = AutoModelForCausalLM.from_pretrained("{address}")',
        f'tokenizer = AutoTokenizer.from_pretrained("{address}")',
        'ids = tokenizer("Once upon a time", return_tensors="pt")',
        "print(tokenizer.decode(model.generate(**ids, max_new_tokens=50)[0]))",
        "```",
    ]


def _head(record: dict[str, Any], how_to_load: list[str]) -> list[str]:
    """The block that the hub reads; ``base_model`` only where it names a model on the hub."""
    base = recorded_base(record)
    on_hub = base.count("/") == 1 and not base.startswith((".", "/", "~")) and not Path(base).exists()
    in_python = how_to_load[0] == "```python"
    lines = ["---", LICENSE_TO_FILL, *(["library_name: transformers"] if in_python else [])]
    lines += ["pipeline_tag: text-generation", *([f"base_model: {base}"] if on_hub else [])]
    return [*lines, f"tags: [pretraining, ptk{'' if in_python else ', gguf'}]", "---", ""]


def _origin(record: dict[str, Any], manifest: dict[str, Any]) -> str:
    base = recorded_base(record)
    start = f"Continued from the base `{Path(base).name if Path(base).exists() else base}`" if base else "From scratch"
    inputs = [Path(str(entry.get("path", "?"))).name for entry in manifest.get("inputs", [])]
    known = manifest.get("fingerprint") == record.get("data_fingerprint") and inputs
    named = ", ".join(inputs[:3]) + (f" and {len(inputs) - 3} more" if len(inputs) > 3 else "")
    return f"{start}{f' on {named}' if known else ''}."


def _which(named: NamedModel, record: dict[str, Any]) -> list[str]:
    if named.step is None:
        return []
    steps = record.get("steps", "?")
    return ["", f"This is its checkpoint after step {named.step} of {steps}; what follows is told of the run."]


def _training(record: dict[str, Any]) -> list[str]:
    names = ("parameters", "steps", "tokens", "sequence_length", "device", "precision", "world_size")
    lines = []
    for name in (*names, "started", "ended"):
        value = record.get(name)
        if value is not None:
            lines.append(f"- {name.replace('_', ' ')}: {_spaced(value)}")
    versions = record.get("versions") or {}
    return [*lines, "- versions: " + ", ".join(f"{name} {version}" for name, version in versions.items())]


def _curves(run: RunFolder) -> list[str]:
    """A few lines of metrics.jsonl from first to last, and the picture where the run drew one."""
    lines = read_lines(run.metrics)
    if not lines:
        return []
    held_out = [line for line in lines if line.get("validation_loss") is not None] or lines
    last = len(held_out) - 1
    places = sorted({round(last * point / (CURVE_POINTS - 1)) for point in range(CURVE_POINTS)})
    rows = ["| step | tokens | training loss | held-out loss | bits per byte |", "| --- | --- | --- | --- | --- |"]
    for line in (held_out[place] for place in places):
        figures = (line.get(key) for key in ("loss", "validation_loss", "validation_bits_per_byte"))
        tokens = _spaced(line.get("tokens", ""))
        rows.append(f"| {line['step']} | {tokens} | {' | '.join(map(_figure, figures))} |")
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
        lines.append(f"- file: {Path(str(entry.get('path', '?'))).name}, {_spaced(entry.get('size', 0))} bytes, "
                     f"hash `{entry.get('hash', '?')}`")  # fmt: skip
    for name, counts in (manifest.get("sources") or {}).items():
        told = counts
        if isinstance(counts, dict):
            told = ", ".join(f"{_spaced(count)} {kind.replace('_', ' ')}" for kind, count in counts.items())
        lines.append(f"- source {name}: {told}")
    return lines


def _evaluation(run: RunFolder) -> list[str]:
    models = _read(run.evaluation / "report.json").get("models") or []
    if not models:
        return ["Not evaluated: `ptk evaluate`."]
    rows = ["| model | text | bits per byte | perplexity | accuracy |", "| --- | --- | --- | --- | --- |"]
    for model in models:
        for text in model["texts"]:
            cells = [_figure(text.get(key)) for key in ("bits_per_byte", "perplexity", "accuracy")]
            interval = text.get("bits_per_byte_interval")
            if interval:
                cells[0] += f" ({_figure(interval[0])} to {_figure(interval[1])})"
            rows.append(f"| {model['name']} | {text['name']} | {' | '.join(cells)} |")
    return [*rows, "", "In brackets: 95 % interval."] if any("(" in row for row in rows) else rows


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _recipe(run: RunFolder) -> str:
    return run.config.read_text("utf-8").strip() if run.config.is_file() else "# not recorded"


def _spaced(value: Any) -> str:
    """1234567 → "1 234 567"."""
    return f"{value:,}".replace(",", " ") if isinstance(value, int) else str(value)


def _read(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}
