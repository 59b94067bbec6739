"""What should a reader of the model know? A model card from the run's own records."""

from __future__ import annotations

from typing import Any

from pretrain_cli.artifacts import Artifacts, RunFolder, read_json, write_text


def write_model_card(run: RunFolder, artifacts: Artifacts, file_name: str = "README.md") -> str:
    """Write the card into the run's ``model/`` and give its text."""
    text = model_card(run, artifacts)
    write_text(run.model / file_name, text)
    return text


def model_card(run: RunFolder, artifacts: Artifacts) -> str:
    """Base, data, recipe, training, evaluation and how to load, as Markdown; the licence is left to be filled in."""
    record = _read(run.record)
    manifest = _read(artifacts.manifest)
    base = record.get("base") or ""
    base = base.get("name", "") if isinstance(base, dict) else base
    lines = ["---", "license: # fill in", "library_name: transformers", "pipeline_tag: text-generation"]
    lines += [f"base_model: {base}"] if base else []
    lines += ["---", "", f"# {run.name}", ""]
    lines += [f"Continued from {base}." if base else "Trained from scratch.", "", "## Load", "", "```python"]
    lines += ["from transformers import AutoModelForCausalLM, AutoTokenizer", ""]
    lines += ['model = AutoModelForCausalLM.from_pretrained("FOLDER")']
    lines += ['tokenizer = AutoTokenizer.from_pretrained("FOLDER")', "```", "", "## Training", ""]
    lines += _table(
        {key: record.get(key) for key in ("steps", "tokens", "parameters", "device", "precision", "started")}
    )
    lines += ["", "## Data", "", f"Fingerprint: `{record.get('data_fingerprint', 'unknown')}`", ""]
    lines += [f"- {name}: {_plain(counts)}" for name, counts in (manifest.get("sources") or {}).items()]
    lines += ["", "## Evaluation", "", *_evaluation(run), "", "## Recipe", "", "```toml"]
    lines += [run.config.read_text("utf-8").strip() if run.config.is_file() else "# not recorded", "```", ""]
    return "\n".join(lines)


def _evaluation(run: RunFolder) -> list[str]:
    models = _read(run.evaluation / "report.json").get("models") or []
    if not models:
        return ["Not evaluated yet: `ptk evaluate`."]
    rows = ["| model | text | bits per byte | perplexity | accuracy |", "| --- | --- | --- | --- | --- |"]
    for model in models:
        for text in model["texts"]:
            figures = " | ".join(f"{text[key]:.4f}" for key in ("bits_per_byte", "perplexity", "accuracy"))
            rows.append(f"| {model['name']} | {text['name']} | {figures} |")
    return rows


def _table(values: dict[str, Any]) -> list[str]:
    return [f"- {key}: {_plain(value)}" for key, value in values.items() if value is not None]


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return str(value)


def _read(path: Any) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}
