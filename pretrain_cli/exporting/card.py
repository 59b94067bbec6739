"""Writes a model card from the run's own records."""

from __future__ import annotations

from pathlib import Path

from pretrain_cli.addresses import redact
from pretrain_cli.artifacts import Artifacts, RunFolder, ollama_name
from pretrain_cli.errors import DataError
from pretrain_cli.evaluation_report import read_report
from pretrain_cli.formatting import exact
from pretrain_cli.manifest import Manifest, read_manifest
from pretrain_cli.model.names import NamedModel
from pretrain_cli.run_record import RunRecord, parse_run_config, read_run_record
from pretrain_cli.sealing import KEY
from pretrain_cli.small_files import small_text
from pretrain_cli.storage import read_lines

CURVE_POINTS = 8
LICENSE_TO_FILL = "license: unknown # fill in, for example apache-2.0; it has to suit the base and the text"
"""The Hub accepts this word, but not an empty field."""


def model_card(named: NamedModel, artifacts: Artifacts, how_to_load: list[str]) -> str:
    """Base, data, recipe, training, evaluation and how to load, as Markdown; the license is left for people to fill in.

    Args:
        named: a run or one of its checkpoints.
        artifacts: where the data was prepared.
        how_to_load: lines made by `loading`.
    """
    run = named.run
    assert run is not None
    record, manifest = read_run_record(run) or RunRecord(), _readable_manifest(artifacts)
    sections = (
        [*_head(record, how_to_load), f"# {named.name}", "", _origin(record, manifest), *_which(named, record)],
        ["## Load", "", *how_to_load],
        ["## Training", "", *_training(record), "", *_curves(run)],
        ["## Data", "", *_data(record, manifest)],
        ["## Evaluation", "", *_evaluation(run)],
        ["## Recipe", "", "<details><summary>All settings of the run</summary>", "", "```toml", _recipe(run), "```"],
        ["</details>"],
        ["A language model repeats what it was trained on, including mistakes and biases."],
    )
    return redact("\n\n".join("\n".join(lines) for lines in sections) + "\n")


def loading(to: str, address: str, file: str, name: str) -> list[str]:
    """How to open what `ptk export` wrote, as Markdown.

    Args:
        to: "hf", "gguf" or "ollama".
        address: what ``from_pretrained`` takes: a repository or a folder.
        file: of the weights, for gguf and ollama.
        name: what the model is called.
    """
    if to == "ollama":
        made = f"ollama create {ollama_name(name)} -f Modelfile"
        return ["```sh", made, f'ollama run {ollama_name(name)} "Once upon a time"', "```"]
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


def _readable_manifest(artifacts: Artifacts) -> Manifest | None:
    """What is prepared now; None where nothing is, or where this ptk can't read it, which the card then says."""
    try:
        return read_manifest(artifacts)
    except DataError:
        return None


def _head(record: RunRecord, how_to_load: list[str]) -> list[str]:
    """The block that the Hub reads; ``base_model`` only where it is a model on the Hub."""
    base = record.base
    on_hub = base.count("/") == 1 and not base.startswith((".", "/", "~")) and not Path(base).exists()
    in_python = how_to_load[0] == "```python"
    lines = ["---", LICENSE_TO_FILL, *(["library_name: transformers"] if in_python else [])]
    lines += ["pipeline_tag: text-generation", *([f"base_model: {base}"] if on_hub else [])]
    return [*lines, f"tags: [pretraining, ptk{'' if in_python else ', gguf'}]", "---", ""]


def _origin(record: RunRecord, manifest: Manifest | None) -> str:
    base = record.base
    nature = f" ({record.base_nature})" if record.base_nature else ""
    start = (
        f"Trained from the base `{Path(base).name if Path(base).exists() else base}`{nature}"
        if base
        else "Trained from scratch"
    )
    if manifest is None or manifest.fingerprint != record.data_fingerprint or not manifest.told_inputs:
        return f"{start}."
    return f"{start} on {manifest.told_inputs}."


def _which(named: NamedModel, record: RunRecord) -> list[str]:
    if named.step is None:
        return []
    total = f" of {exact(record.steps)}" if record.steps else ""
    return [
        "",
        f"This is the checkpoint after step {exact(named.step)}{total}; the rest of this card is about the run.",
    ]


def _training(record: RunRecord) -> list[str]:
    facts: dict[str, int | str | None] = {
        "parameters": record.parameters,
        "steps": record.steps,
        "tokens": record.tokens,
        "sequence length": record.sequence_length,
        "device": record.device,
        "precision": record.precision,
        "processes": record.world_size,
        "started": record.started,
        "ended": record.ended,
    }
    lines = [f"- {name}: {_fact(value)}" for name, value in facts.items() if value]
    return [*lines, "- versions: " + ", ".join(f"{name} {version}" for name, version in record.versions.items())]


def _curves(run: RunFolder) -> list[str]:
    """Some lines of metrics.jsonl from first to last, and the picture if the run drew one."""
    lines = read_lines(run.metrics)
    if not lines:
        return []
    held_out = [line for line in lines if line.get("validation_loss") is not None] or lines
    last = len(held_out) - 1
    places = sorted({round(last * point / (CURVE_POINTS - 1)) for point in range(CURVE_POINTS)})
    rows = ["| step | tokens | training loss | held-out loss | bits per byte |", "| --- | --- | --- | --- | --- |"]
    for line in (held_out[place] for place in places):
        figures = (line.get(key) for key in ("loss", "validation_loss", "validation_bits_per_byte"))
        tokens = _fact(line.get("tokens", ""))
        rows.append(f"| {exact(line['step'])} | {tokens} | {' | '.join(map(_figure, figures))} |")
    if run.curves.is_file():
        rows += ["", "![Loss, learning rate, gradient norm and speed by step](curves.png)"]
    return rows


def _data(record: RunRecord, manifest: Manifest | None) -> list[str]:
    """About the data that the run was trained on; if other data is prepared by now, that says nothing about it."""
    lines = [f"- fingerprint: `{record.data_fingerprint or 'unknown'}`"]
    if manifest is None:
        return [*lines, "- its sources aren't known: the artifact folder has no manifest that can be read"]
    if manifest.fingerprint != record.data_fingerprint:
        return [*lines, "- its sources aren't known: the artifact folder now holds other data"]
    for entry in manifest.inputs:
        lines.append(f"- file: {Path(entry.path).name}, {exact(entry.size)} bytes, hash `{entry.hash}`")
    if manifest.input_count > len(manifest.inputs):
        lines.append(f"- and {exact(manifest.input_count - len(manifest.inputs))} more files")
    for name, counts in manifest.sources.items():
        lines.append(f"- source {name}: {_amount(counts.documents, counts.tokens, counts.bytes)}")
        if counts.validation_documents:
            held_out = _amount(counts.validation_documents, counts.validation_tokens, counts.validation_bytes)
            lines[-1] += f"; held out: {held_out}"
    return lines


def _evaluation(run: RunFolder) -> list[str]:
    report = read_report(run.evaluation)
    if report is None or not report.models:
        return ["Not evaluated: `ptk evaluate`."]
    rows = ["| model | text | bits per byte | perplexity | accuracy |", "| --- | --- | --- | --- | --- |"]
    for model in report.models:
        for text in model.texts:
            cells = [_figure(value) for value in (text.bits_per_byte, text.perplexity, text.accuracy)]
            if text.bits_per_byte_interval:
                low, high = text.bits_per_byte_interval
                cells[0] += f" ({_figure(low)} to {_figure(high)})"
            rows.append(f"| {model.name} | {text.name} | {' | '.join(cells)} |")
    return [*rows, "", "In parentheses: 95% intervals."] if any("(" in row for row in rows) else rows


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _recipe(run: RunFolder) -> str:
    if not run.config.is_file():
        return "# not recorded"
    parse_run_config(run)  # a damaged one isn't published
    lines = small_text(run.config).splitlines()
    return "\n".join(line for line in lines if not line.startswith(f"# {KEY}: ")).strip()


def _fact(value: int | str) -> str:
    return exact(value) if isinstance(value, int) else value


def _amount(documents: int, tokens: int, n_bytes: int) -> str:
    units = {"document": documents, "token": tokens, "byte": n_bytes}
    return ", ".join(f"{exact(number)} {unit}{'' if number == 1 else 's'}" for unit, number in units.items())
