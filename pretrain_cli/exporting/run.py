"""The front door of export: a run's model as a transformers folder, a .gguf file, or with an Ollama Modelfile."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from pretrain_cli.artifacts import EXPORT_RECORD, Artifacts
from pretrain_cli.errors import DataError, UsageError
from pretrain_cli.exporting.card import loading, model_card
from pretrain_cli.exporting.check import compare_with_llama_cpp, open_with_transformers
from pretrain_cli.exporting.hub import check_hub, push
from pretrain_cli.exporting.owned import check_all_ours, check_ours, check_output, move_in, publish
from pretrain_cli.exporting.serving import serving_commands
from pretrain_cli.manifest import read_manifest
from pretrain_cli.model.gguf_writing import context_length, write_gguf
from pretrain_cli.model.limits import limit_of_config
from pretrain_cli.model.load import read_model_config
from pretrain_cli.model.names import NamedModel, find_model, open_folders, removal_told
from pretrain_cli.progress import SILENT, Progress
from pretrain_cli.published import check_published
from pretrain_cli.records import damaged_files
from pretrain_cli.refusals import denied, writing_to
from pretrain_cli.run_record import read_run_record
from pretrain_cli.storage import check_link, copy_file, read_json, temporary_folder, write_text
from pretrain_cli.tokenizer.chat import read_chat_template
from pretrain_cli.tokenizer.copy import COMPANIONS

DESCRIPTION = ("README.md", "curves.png")
FORMATS = ("hf", "gguf", "ollama")
LONGEST_TEXT = 256
"""Tokens that Ollama writes at once where nobody asks for more: `/set parameter num_predict`, or a request."""
TOKENIZER_FILES = ("tokenizer.json", *COMPANIONS, "tokenizer.model", "vocab.json", "merges.txt")


@dataclass(frozen=True)
class ExportResult:
    """What was written of model ``name``.

    ``checked``: how it was checked; ``address``: where it was uploaded; ``serve``: commands that serve it.
    """

    name: str
    format: str
    path: Path
    bytes: int
    files: list[Path] = field(default_factory=list)
    checked: str = ""
    address: str = ""
    serve: list[str] = field(default_factory=list)


def export(
    artifacts: Artifacts,
    progress: Progress = SILENT,
    *,
    to: str = "hf",
    run: str | None = None,
    checkpoint: str | None = None,
    output: Path | None = None,
    quantization: str = "f16",
    push_to_hub: str | None = None,
) -> ExportResult:
    """Write a run's model for others to use, by default to ``exports/<run>`` in the artifact folder.

    Args:
        artifacts: where the run is.
        progress: told what is being written.
        to: "hf", "gguf", or "ollama" (a .gguf file with a Modelfile).
        run: the latest where None; a model folder, a .gguf file, a Hub id or "base" works too.
        checkpoint: one of its checkpoints instead of the finished model.
        output: the folder to write into.
        quantization: "f16" or "q8_0", for gguf and ollama.
        push_to_hub: a repository, owner/name, that the folder is uploaded to.

    Raises:
        UsageError: an unknown format or quantization, an output folder that holds something else, or no login.
        ModelError: there is no such model, or what was written doesn't open.
        MissingDependencyError: gguf isn't installed.
    """
    if to not in FORMATS:
        raise UsageError(f"'{to}' is not an export format.", f"Formats: {', '.join(FORMATS)}.")
    if quantization not in ("f16", "q8_0"):
        raise UsageError(f"'{quantization}' is not a known quantization.", "Quantizations: f16, q8_0.")
    named = find_model(run, artifacts, checkpoint)
    if push_to_hub is not None:
        check_hub(push_to_hub)
    folder = output or artifacts.exports / f"{named.name.replace('@', '-')}-{to}"
    check_output(folder, artifacts, [named.location] if to == "hf" else ())  # a .gguf file comes beside what is there
    file = folder / f"{named.name.replace('@', '-')}-{quantization}.gguf"
    if to == "hf":
        check_all_ours(folder)
    else:
        check_ours(folder, (file.name, "Modelfile", *DESCRIPTION))
    progress.stage(f"exporting {named.name} to {to}")
    with removal_told(named), tempfile.TemporaryDirectory() as spare:
        location, tokenizer = open_folders(named, artifacts)
        check_published(Path(location), tensors=True)
        whole = _assembled(location, tokenizer, Path(spare) / named.name)
        rows = _rows_from_scratch(named)
        most = None if rows is None else limit_of_config(read_model_config(str(whole)))
        if named.run is not None:
            address = push_to_hub or folder.name
            _describe(named, artifacts, whole, loading(to, address, file.name, whole.name), progress)
        if to == "hf":
            files, checked = _write_hf(whole, folder), "opened with transformers"
        else:
            files, checked = _write_gguf(
                whole, file, quantization, _modelfile(rows, whole, file) if to == "ollama" else ""
            )
    progress.end_stage()
    address = ""
    if push_to_hub is not None:
        progress.stage(f"uploading to {push_to_hub}")
        address = push(folder, files, push_to_hub)
        progress.end_stage()
    size = sum(entry.stat().st_size for entry in files)
    shorter = rows if rows is not None and (most is None or rows < most) else None
    serve = serving_commands(to, named.name, folder, file, shorter)
    return ExportResult(named.name, to, folder, size, files, checked, address, serve)


def _describe(named: NamedModel, artifacts: Artifacts, whole: Path, how_to_load: list[str], progress: Progress) -> None:
    assert named.run is not None
    record = read_run_record(named.run)
    for told in damaged_files(named.run.path, record.files if record is not None else {}, read=True):
        progress.warn(f"{told}: the model card shows what is there.")
    try:
        if artifacts.manifest.is_file():
            read_manifest(artifacts)
    except (DataError, PermissionError) as error:
        told = denied(error)[0] if isinstance(error, PermissionError) else error.message
        progress.warn(f"{told} The model card names no inputs.")
    write_text(whole / "README.md", model_card(named, artifacts, how_to_load))
    if named.run.curves.is_file():
        copy_file(named.run.curves, whole / "curves.png")


def _rows_from_scratch(named: NamedModel) -> int | None:
    """Tokens of the rows that a run from scratch has seen; None for other models, which keep what their config says."""
    record = read_run_record(named.run) if named.run is not None else None
    return None if record is None or record.base else record.sequence_length or None


def _modelfile(rows: int | None, whole: Path, file: Path) -> str:
    """What Ollama reads, with the context that the model was trained in: from scratch no more than its ``rows``.

    A model for chats has its template in the .gguf file. Any other gets the prompt as it is, and is told when to stop:
    Ollama lets a text that has no end fill ten contexts.
    """
    most = context_length(read_json(whole / "config.json"))
    context = min(rows or most, most)
    settings = f"PARAMETER num_ctx {context}\nPARAMETER temperature 0.8\n"
    if read_chat_template(whole) is None:
        settings = f"TEMPLATE {{{{ .Prompt }}}}\n{settings}PARAMETER num_predict {min(context, LONGEST_TEXT)}\n"
    return f"FROM ./{file.name}\n{settings}"


def _write_gguf(whole: Path, file: Path, quantization: str, modelfile: str) -> tuple[list[Path], str]:
    """The file, its card, for Ollama a Modelfile; and what running it showed."""
    with writing_to(file.parent.parent), temporary_folder(file.parent.parent, "export") as staging:
        write_gguf(whole, staging / file.name, quantization)
        checked = compare_with_llama_cpp(whole, staging / file.name)
        if modelfile:
            write_text(staging / "Modelfile", modelfile)
        for name in DESCRIPTION:
            if (whole / name).is_file():
                shutil.copyfile(whole / name, staging / name)
        return sorted(move_in(staging, file.parent), key=lambda moved: moved != file), checked


def _assembled(location: str, tokenizer: Path, whole: Path) -> Path:
    """A folder with only what a model needs; weights are links where they can be used as they are."""
    whole.mkdir()
    source = Path(location)
    weights = sorted(source.glob("model*.safetensors*"))
    if weights and (source / "config.json").is_file():
        for file in [*weights, source / "config.json", source / "generation_config.json"]:
            if file.is_file():
                check_link(file)
                (whole / file.name).symlink_to(file.resolve())
    else:  # an older format, or a model in the Hub's cache; this says what is missing
        from pretrain_cli.model.load import load_model

        load_model(location).save_pretrained(whole)
    for name in TOKENIZER_FILES:
        if (tokenizer / name).is_file():
            copy_file(tokenizer / name, whole / name)
    return whole


def _write_hf(whole: Path, folder: Path) -> list[Path]:
    """Copy the folder, open it as everyone does, and only then give it its name."""
    with writing_to(folder.parent), temporary_folder(folder.parent, "export") as staging:
        inner = staging / "model"
        shutil.copytree(whole, inner)
        open_with_transformers(inner)
        publish(inner, folder)
    return sorted(file for file in folder.iterdir() if file.is_file() and file.name != EXPORT_RECORD)
