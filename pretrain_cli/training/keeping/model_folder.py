"""What does a run leave behind: a model folder that opens anywhere, and its curves?"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from pretrain_cli.artifacts import Artifacts, RunFolder, publish_folder, read_lines, writing_to


def save_model(model: Any, run: RunFolder, artifacts: Artifacts, card: str) -> None:
    """Weights, tokenizer and card in ``run.model``, complete or absent.

    Raises:
        NoSpaceError: the disk is full.
    """
    model.config.use_cache = True
    with (
        writing_to(run.path),
        tempfile.TemporaryDirectory(dir=run.path, prefix=".model-", ignore_cleanup_errors=True) as parent,
    ):
        staging = Path(parent) / "model"
        model.save_pretrained(staging)
        copy_tokenizer_files(artifacts.tokenizer, staging)
        (staging / "README.md").write_text(card, encoding="utf-8")
        publish_folder(staging, run.model)


def copy_tokenizer_files(source: Path, target: Path) -> None:
    """Every file of the tokenizer's folder; none of the model's own is replaced."""
    for entry in sorted(source.iterdir()):
        if entry.is_file() and not entry.name.startswith(".") and not (target / entry.name).exists():
            shutil.copyfile(entry, target / entry.name)


def model_card(run: RunFolder, record: dict[str, Any], manifest: dict[str, Any], validation: dict[str, Any]) -> str:
    """A README.md for the model: what it was made from, how, and how good it is."""
    base = record.get("base") or ""
    inputs = ", ".join(Path(str(entry.get("path", "?"))).name for entry in manifest.get("inputs", [])[:5])
    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: text-generation",
        *([f"base_model: {base}"] if "/" in base and not base.startswith((".", "/")) else []),
        "tags: [pretraining, ptk]",
        "---",
        "",
        f"# {run.name}",
        "",
        f"Trained with ptk {record['versions']['pretrain-cli']} "
        + (f"from the base `{Path(base).name}`." if base else "from scratch."),
        "",
        f"- parameters: {record['parameters']:,}",
        f"- text: {inputs or 'unnamed'}, {manifest['train']['tokens']:,} tokens; trained on {record['tokens']:,}",
        f"- steps: {record['steps']:,}; {record['precision']} on {record['device']}",
    ]
    if validation.get("loss") is not None:
        bits = validation.get("bits_per_byte")
        lines.append(
            f"- held-out loss: {validation['loss']:.4f}" + (f", {bits:.4f} bits per byte" if bits is not None else "")
        )
    return "\n".join([*lines, "", "A language model repeats what it was trained on, mistakes and biases included.", ""])


def import_drawing() -> None:
    """Import what `draw_curves` needs, before a run's time is planned.

    It takes 0.4 s, and several the first time on a machine, when matplotlib lists its fonts.
    """
    import matplotlib.figure
    import matplotlib.font_manager  # noqa: F401


def draw_curves(run: RunFolder) -> None:
    """Draw curves.png: training and validation loss, learning rate and speed by step."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    lines = read_lines(run.metrics)
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots(2, 2)
    panels = (("loss", "loss"), ("learning_rate", "learning rate"), ("grad_norm", "gradient norm"))
    for place, (key, title) in zip(axes.flat, (*panels, ("tokens_per_second", "tokens/s")), strict=True):
        points = [(line["step"], line[key]) for line in lines if line.get(key) is not None]
        place.plot(*zip(*points, strict=True), linewidth=1, label="training") if points else None
        if key == "loss":
            held_out = [(line["step"], line["validation_loss"]) for line in lines if line.get("validation_loss")]
            place.plot(*zip(*held_out, strict=True), "o-", label="held out") if held_out else None
            place.legend()
        place.set(title=title, xlabel="step")
        place.grid(alpha=0.3)
    staging = run.path / ".curves.png"
    with writing_to(run.path):
        figure.savefig(staging, dpi=110)
        staging.replace(run.path / "curves.png")
