"""The front door of blend: one model made of the weights of several, with a card that says of which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.errors import ModelError, UsageError, first_line
from pretrain_cli.exporting.card import LICENSE_TO_FILL, loading
from pretrain_cli.exporting.check import open_with_transformers
from pretrain_cli.exporting.owned import check_all_ours, check_output, publish
from pretrain_cli.model.blending import Part, blend_folders, check_parts
from pretrain_cli.model.names import NamedModel, find_model, open_folders
from pretrain_cli.progress import SILENT, Progress
from pretrain_cli.published import check_published
from pretrain_cli.refusals import writing_to
from pretrain_cli.storage import copy_file, temporary_folder, write_text
from pretrain_cli.tokenizer.chat import TEMPLATE, read_chat_template
from pretrain_cli.tokenizer.copy import tokenizer_files
from pretrain_cli.tokenizer.load import EXTENSION

LARGEST_WEIGHT = 100


@dataclass(frozen=True)
class BlendedPart:
    """A model, and what its weights were multiplied by."""

    name: str
    location: str
    weight: float


@dataclass(frozen=True)
class BlendResult:
    """A blend. ``model`` is its folder; the weights in it are the sum of ``parts``."""

    model: Path
    parts: list[BlendedPart]
    tensors: int
    parameters: int
    bytes: int
    warnings: list[str] = field(default_factory=list)


def blend(
    artifacts: Artifacts,
    progress: Progress = SILENT,
    *,
    first: str,
    second: str | None = None,
    weight: float | None = None,
    difference: tuple[str, str] | None = None,
    output: Path | None = None,
) -> BlendResult:
    """Make one model of several, by default in ``exports/`` of the artifact folder.

    The line between two models: ``(1 - weight) * first + weight * second`` (Branch-and-Merge, arXiv 2407.08699). Or
    what a model was taught after its base, added to another: ``first + weight * (instruct - base)`` (arXiv 2410.10739).

    Args:
        artifacts: where runs are found.
        progress: told what is being done.
        first: a run, one of its checkpoints, a folder, a .gguf file, a Hub id or "base".
        second: the same; None with a difference.
        weight: of the second model, or of the difference; None: 0.5 and 1.
        difference: (instruct, base).
        output: folder to write to.

    Raises:
        UsageError: neither a second model nor a difference, a weight that is too large, or an output folder that holds
            something else.
        ModelError: a model isn't there, or they don't fit each other.
    """
    if (second is None) == (difference is None):
        raise UsageError(
            "Give a second model, or --add-difference, but not both." if second else "There is nothing to blend with.",
            "ptk blend A B --weight 0.5, or ptk blend A --add-difference INSTRUCT BASE",
        )
    if weight is not None and not abs(weight) <= LARGEST_WEIGHT:  # nan is refused too
        raise UsageError(
            f"The weight {weight:g} can't be used.", f"Give one from {-LARGEST_WEIGHT} to {LARGEST_WEIGHT}."
        )
    if difference is None:
        assert second is not None
        share = 0.5 if weight is None else weight
        wanted = [(first, 1 - share), (second, share)]
    else:
        share = 1.0 if weight is None else weight
        wanted = [(first, 1.0), (difference[0], share), (difference[1], -share)]
    named = [(find_model(name, artifacts), each) for name, each in wanted]
    folder = output or artifacts.exports / _folder_name([model for model, _ in named], share, difference is not None)
    check_output(folder, artifacts, [model.location for model, _ in named])
    check_all_ours(folder)
    parts = [_part(model, each, artifacts, progress) for model, each in named]
    widest = check_parts(parts)
    progress.stage("blending " + ", ".join(part.name for part in parts))
    with writing_to(folder.parent), temporary_folder(folder.parent, "blend") as staging:
        inner = staging / "model"
        made = blend_folders(parts, widest, inner)
        _copy_tokenizer(widest, parts, inner)
        write_text(inner / "README.md", _card(folder.name, parts, difference is not None))
        open_with_transformers(inner)
        publish(inner, folder)
    progress.end_stage()
    told = [BlendedPart(part.name, str(part.folder), part.weight) for part in parts]
    return BlendResult(folder, told, made.tensors, made.parameters, made.bytes)


def _part(named: NamedModel, weight: float, artifacts: Artifacts, progress: Progress) -> Part:
    progress.stage(f"opening {named.name}")
    location, tokenizer = open_folders(named, artifacts)
    folder = Path(location)
    if not folder.is_dir():
        folder = _downloaded(location)
    check_published(folder, tensors=True)
    progress.end_stage()
    return Part(named.name, folder, tokenizer, weight)


def _downloaded(name: str) -> Path:
    """The files of a Hub model, in the Hub's own cache."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors"]))
    except Exception as error:  # each HTTP library under the Hub's client has its own errors
        raise ModelError(
            f"The model {name} can't be fetched: {first_line(error)}.", "Check the network, or give a folder."
        ) from error


def _copy_tokenizer(part: Part, parts: Sequence[Part], folder: Path) -> None:
    """Copy the files of the part's tokenizer into ``folder``; where it has no chat template, another part's."""
    for file in tokenizer_files(part.tokenizer):
        copy_file(file, folder / file.name)
    if (part.tokenizer / EXTENSION).is_file():
        copy_file(part.tokenizer / EXTENSION, folder / EXTENSION)
    templates = (read_chat_template(each.tokenizer) for each in (part, *parts))
    found = next((template for template in templates if template is not None), None)
    if found is not None:
        write_text(folder / TEMPLATE, found.text)


def _folder_name(models: Sequence[NamedModel], weight: float, difference: bool) -> str:
    names = [Path(model.name).stem.replace("@", "-") for model in models]
    if difference:
        return f"{names[0]}-plus-{names[1]}-{weight:g}"
    return f"{names[0]}-{names[1]}-{weight:g}"


def _card(name: str, parts: Sequence[Part], difference: bool) -> str:
    rows = [f"| {part.weight:+g} | `{part.name}` |" for part in parts]
    how = "What one model was taught after its base, added to another." if difference else "A point between two models."
    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: text-generation",
        LICENSE_TO_FILL,
        "tags: [merge, ptk]",
        "---",
        "",
        f"# {name}",
        "",
        f"{how} Its weights are the sum of those of these models, each times its factor; nothing was trained.",
        "",
        "| factor | model |",
        "| --- | --- |",
        *rows,
        "",
        "## Load",
        "",
        *loading("hf", name, "", name),
        "",
        "A language model repeats what it was trained on, including mistakes and biases.",
    ]
    return "\n".join(lines) + "\n"
