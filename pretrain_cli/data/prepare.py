"""The front door of prepare: text in, tokenizer, packed rows and a manifest that adds up out."""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import JsonValue

from pretrain_cli.artifacts import Artifacts, lock, writing_to
from pretrain_cli.config.model import Config
from pretrain_cli.data import ledger as ledgers
from pretrain_cli.data.choosing.selection import Selection, select
from pretrain_cli.data.encoding.encoder import EncoderSettings, choose_encoder
from pretrain_cli.data.encoding.executors import run_tasks
from pretrain_cli.data.encoding.shards import DOCUMENT, ShardSettings, TaskCounts
from pretrain_cli.data.encoding.tasks import finished_task, plan_tasks, shard_name
from pretrain_cli.data.encoding.text_sample import head_sample
from pretrain_cli.data.encoding.tokenizer_choice import find_tokenizer, source_of, tokenizer_key
from pretrain_cli.data.fingerprint import differences, fingerprint, hash_files, hash_tokenizer
from pretrain_cli.data.reading.files import STDIN, InputFile
from pretrain_cli.data.reading.inputs import check_unchanged, find_files
from pretrain_cli.data.rows.assembly import RowSettings, Shards, SplitCounts, locate, write_split
from pretrain_cli.data.staging import Staging
from pretrain_cli.errors import DataError, UsageError
from pretrain_cli.manifest import InputRecord, Ledger, Manifest, RowLayout, TokenizerRecord, read_manifest
from pretrain_cli.progress import SILENT, Progress
from pretrain_cli.tokenizer.load import TokenizerInfo, read_tokenizer

NOTES_SHOWN = 5


@dataclass(frozen=True)
class PrepareResult:
    """What prepare made. ``fill``: share of the rows' places that hold tokens; ``dropped``: documents by reason."""

    documents: int
    bytes: int
    tokens: int
    rows: int
    fill: float
    dropped: dict[str, int]
    seconds: float
    megabytes_per_second: float
    tokenizer: str
    path: Path
    reused: bool
    train_rows: int
    validation_rows: int
    validation_documents: int
    warnings: list[str] = field(default_factory=list)


def prepare(config: Config, artifacts: Artifacts, progress: Progress = SILENT, *, merge: bool = False) -> PrepareResult:
    """Read, clean, encode, pack and store the configured inputs.

    With ``data.shard`` only that part is encoded; ``merge`` packs what the parts have made, and does no part itself.

    A complete output that matches is kept (``reused``). One that doesn't is replaced, and what changed is named.
    Killed at any point, the next call continues from the finished shards, with the same bytes out.

    Raises:
        DataError: an input that is missing, empty, binary or damaged.
        UsageError: another process prepares here, or the folder can't be written.
    """
    started = time.perf_counter()
    files, names, weights = _inputs(config)
    # Parts run beside each other, each with a lock of its own; only a whole prepare packs and removes.
    _check_part(config.data.shard, merge)
    part = config.data.shard.replace("/", "-of-")
    with (
        lock(artifacts.data / f".part-{part}" if part else artifacts.data, "preparing"),
        writing_to(artifacts.root),
        _stdin_saved(files, artifacts.data) as readable,
    ):
        return _Prepare(config, artifacts, progress, readable, names, weights, started, merge).run()


def _check_part(shard: str, merge: bool) -> None:
    if not shard:
        return
    number, total = map(int, shard.split("/"))
    if not total or number > total:
        raise UsageError(f"There is no part {shard}.", "Parts of 8 are 0/8 to 7/8; 8/8 is 0/8.")
    if merge:
        raise UsageError("One part can't be merged.", "Run --merge without --shard, once all parts are done.")


def _inputs(config: Config) -> tuple[list[InputFile], list[str], list[float]]:
    """(files, source names, source weights)."""
    if config.data.sources:
        sources = [(entry.name or entry.path, entry.weight, [entry.path]) for entry in config.data.sources]
    elif config.data.inputs:
        sources = [("text", 1.0, list(config.data.inputs))]
    else:
        raise DataError("No text to prepare.", "Name some: ptk prepare data.txt")
    files = [file for index, source in enumerate(sources) for file in find_files(source[2], index)]
    if files and all(file.size == 0 for file in files):
        raise DataError(f"{files[0].path} is empty.", "Name a file with text in it.")
    return files, [source[0] for source in sources], [source[1] for source in sources]


@contextlib.contextmanager
def _stdin_saved(files: list[InputFile], folder: Path) -> Iterator[list[InputFile]]:
    """Standard input can be read once only: it is kept in ``folder`` while prepare runs."""
    if not any(file.path == STDIN for file in files):
        yield files
        return
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".stdin-") as copy:
        shutil.copyfileobj(sys.stdin.buffer, copy, 1 << 20)
        copy.flush()
        size = Path(copy.name).stat().st_size
        if not size:
            raise DataError("Standard input is empty.", "Pipe text into it: cat data.txt | ptk prepare -")
        saved = [replace(file, path=copy.name, size=size) if file.path == STDIN else file for file in files]
        yield saved


class _Prepare:
    """One run of prepare: state shared by its steps, which ``run`` lists in order."""

    def __init__(
        self,
        config: Config,
        artifacts: Artifacts,
        progress: Progress,
        files: list[InputFile],
        names: list[str],
        weights: list[float],
        started: float,
        merge: bool,
    ) -> None:
        self.merge = merge
        self.config, self.artifacts, self.progress, self.started = config, artifacts, progress, started
        self.files, self.names, self.weights = files, names, weights
        self.warnings: list[str] = []
        self.notes: list[str] = []
        self.staging = Staging(artifacts)

    def run(self) -> PrepareResult:
        part = bool(self.config.data.shard)
        if not part:
            self.staging.finish()
        # Where the text shapes no tokenizer, a part reads its own share only: a thousand parts would hash all of it.
        reads_all = not part or not (self.config.tokenizer.path or self.config.model.base)
        hashes = hash_files(self.files, self.progress) if reads_all else [""] * len(self.files)
        wanted = self._wanted(hashes)
        previous = self._previous() if reads_all else None
        if previous and previous.request == wanted and self._complete(previous):
            self.progress.note("The prepared data matches: nothing to do.")
            return _result(previous, self.artifacts, True, self.started)
        if previous:
            changes = differences(previous.request, wanted)
            self.progress.note(f"Preparing again: {'; '.join(changes) or 'the last output is incomplete'}.")
        work = self.artifacts.data / ".work"
        work.mkdir(parents=True, exist_ok=True)
        key = tokenizer_key(wanted)
        info = find_tokenizer(self.config, self.artifacts, work, key, self.files, self.progress)
        encoder = self._encoder(info)
        dtype = "uint16" if info.vocab_size <= 1 << 16 else "uint32"
        settings = self._task_settings(encoder, dtype)
        counts, shards = self._encode(settings, info, work)
        if part:
            return self._part_result(counts, info, settings)
        self.staging.begin()
        manifest = self._pack(counts, shards, settings, info, wanted, hashes, key)
        self.staging.publish(info.folder, manifest)
        shutil.rmtree(work, ignore_errors=True)
        for lock_file in self.artifacts.data.glob(".part-*"):
            shutil.rmtree(lock_file, ignore_errors=True)
        return _result(manifest, self.artifacts, False, self.started)

    def _part_result(self, counts: list[TaskCounts], info: TokenizerInfo, settings: ShardSettings) -> PrepareResult:
        self.progress.note("This part is done. Once all are, ptk prepare --merge packs the rows.")
        seconds, size = time.perf_counter() - self.started, sum(count.bytes_in for count in counts)
        return PrepareResult(
            documents=sum(count.kept_documents for count in counts),
            bytes=size,
            tokens=sum(count.tokens for count in counts),
            rows=0,
            fill=0.0,
            dropped=ledgers.merge([count.dropped_documents for count in counts]),
            seconds=seconds,
            megabytes_per_second=size / 1e6 / seconds,
            tokenizer=f"{info.vocab_size} entries, encoded by {settings.encoder.engine}",
            path=self.artifacts.data,
            reused=False,
            train_rows=0,
            validation_rows=0,
            validation_documents=0,
            warnings=self.warnings,
        )

    def _wanted(self, hashes: list[str]) -> dict[str, JsonValue]:
        """All that shapes the output, before any work: what a later call compares itself with."""
        data = self.config.data.model_dump(mode="json", exclude={"inputs", "sources", "workers", "executor", "shard"})
        tokenizer = self.config.tokenizer.model_dump(mode="json")
        return {
            **data,
            "document_separator": self.config.data.separator,
            **{f"tokenizer.{name}": value for name, value in tokenizer.items()},
            "base": self.config.model.base,
            "tokenizer.json": hash_tokenizer(self.config.tokenizer.path),
            "sources": [[name, weight] for name, weight in zip(self.names, self.weights, strict=True)],
            "inputs": [[path, digest] for path, digest in zip(self._input_names(), hashes, strict=True)],
        }

    def _input_names(self) -> list[str]:
        """The inputs' paths as they were given."""
        return [STDIN if Path(file.path).name.startswith(".stdin-") else file.path for file in self.files]

    def _previous(self) -> Manifest | None:
        if not self.artifacts.manifest.is_file():
            return None
        try:
            return read_manifest(self.artifacts)
        except DataError as error:
            self.progress.note(f"Preparing again: {error.message}")
            return None

    def _complete(self, manifest: Manifest) -> bool:
        folders = (self.artifacts.train_rows, self.artifacts.validation_rows)
        if not all((folder / "state.json").is_file() for folder in folders):
            return False
        try:
            return read_tokenizer(self.artifacts.tokenizer).fingerprint == manifest.tokenizer.fingerprint
        except Exception:  # whatever is wrong with it, it is made again
            return False

    def _encoder(self, info: TokenizerInfo) -> EncoderSettings:
        wanted = self.config.tokenizer.engine
        sample = head_sample(self.files, self.config)
        settings, reason = choose_encoder(info.file, wanted, self.config.data.parse_special_tokens, sample)
        if reason:
            self._warn(f"{reason}: the exact engine encodes, which is slower.")
        return settings

    def _warn(self, text: str) -> None:
        self.warnings.append(text)
        self.progress.warn(text)

    def _task_settings(self, encoder: EncoderSettings, dtype: str) -> ShardSettings:
        data = self.config.data
        return ShardSettings(
            encoder,
            dtype,
            data.separator,
            data.text_column,
            data.encoding,
            data.on_error,
            data.cleaning,
            data.near_dedup,
        )

    def _encode(self, settings: ShardSettings, info: TokenizerInfo, work: Path) -> tuple[list[TaskCounts], Path]:
        tasks = plan_tasks(self.files)
        key = fingerprint(
            {
                "layout": 2,
                "files": [file.to_dict() for file in self.files],
                "settings": [settings.dtype, settings.separator, settings.column, settings.encoding, settings.on_error],
                "cleaning": [*settings.cleaning, "near" if settings.near_dedup else ""],
                "encoder": [settings.encoder.engine, settings.encoder.cut, settings.encoder.parse_special_tokens],
                "tokenizer": info.fingerprint,
            }
        )
        folder = work / f"shards-{key[:16]}"
        for other in [] if self.config.data.shard else list(work.iterdir()):
            if other not in (folder, info.folder):
                shutil.rmtree(other, ignore_errors=True)
        folder.mkdir(exist_ok=True)
        if self.config.data.shard:
            number, total = map(int, self.config.data.shard.split("/"))
            tasks = [task for task in tasks if task.index % total == number % total]
        missing = [task for task in tasks if finished_task(folder, task.index) is None] if self.merge else []
        if missing:
            raise DataError(
                f"{len(missing)} of {len(tasks)} shards aren't done, the first is {missing[0].index}.",
                "Run the parts that are missing with --shard, or prepare without --merge: it does what is left.",
            )
        data = self.config.data
        counts = run_tasks(tasks, settings, folder, data.workers, self.progress, data.executor)
        check_unchanged(self.files)
        self.notes = list(dict.fromkeys(note for count in counts for note in count.notes))
        for note in self.notes[:NOTES_SHOWN]:
            self._warn(note)
        if len(self.notes) > NOTES_SHOWN:
            self._warn(
                f"… and {len(self.notes) - NOTES_SHOWN:,} more like these: all are in {self.artifacts.manifest}."
            )
        return counts, folder

    def _pack(
        self,
        counts: list[TaskCounts],
        work: Path,
        settings: ShardSettings,
        info: TokenizerInfo,
        request: dict[str, JsonValue],
        hashes: list[str],
        key: str,
    ) -> Manifest:
        table, sizes = _read_tables(work, len(counts))
        selection = select(table, self.config.data, self.weights, info, work, sizes)
        if not len(selection.train.documents):
            raise DataError(_nothing_left(counts, selection), "Look at data.cleaning, or give more text.")
        shards = locate(table["tokens"], sizes, work, settings.dtype)
        rows = self._row_settings(info, settings.dtype)
        train = self._write(selection, "train", shards, rows)
        validation = self._write(selection, "validation", shards, rows)
        ledger = ledgers.make_ledger(counts, table, selection, train, validation, rows)
        self._warn_of_losses(ledger, validation, rows)
        _write_rejected(self.staging.rejected, work, len(counts))
        tokenizer = TokenizerRecord(
            fingerprint=info.fingerprint,
            vocab_size=info.vocab_size,
            engine=settings.encoder.engine,
            source=source_of(self.config),
            key=key,
        )
        layout = self._layout(rows, settings, selection)
        held_out = selection.validation_bytes
        trained_on = ledgers.split_record(train, ledger.bytes.kept - held_out)
        validated_on = ledgers.split_record(validation, held_out)
        return Manifest(
            settings=layout,
            inputs=tuple(
                InputRecord(path=path, size=file.size, hash=digest)
                for path, file, digest in zip(self._input_names(), self.files, hashes, strict=True)
            ),
            tokenizer=tokenizer,
            base=self.config.model.base,
            train=trained_on,
            validation=validated_on,
            sources={name: ledgers.source_record(at, table, selection) for at, name in enumerate(self.names)},
            statistics=ledgers.make_statistics(ledger, selection, train, validation, rows),
            rejected=ledgers.merge([count.rejected for count in counts]),
            ledger=ledger,
            request=request,
            warnings=tuple(self.warnings),
            notes=tuple(self.notes),
            fingerprint=fingerprint(
                {
                    "settings": layout.model_dump(mode="json"),
                    "tokenizer": tokenizer.model_dump(mode="json", exclude={"key"}),
                    "train": trained_on.model_dump(mode="json"),
                    "validation": validated_on.model_dump(mode="json"),
                    "inputs": [*hashes],
                }
            ),
            seconds=round(time.perf_counter() - self.started, 3),
        )

    def _warn_of_losses(self, ledger: Ledger, validation: SplitCounts, rows: RowSettings) -> None:
        if self.config.data.validation_fraction and not validation.rows:
            self._warn(
                f"The text is too small for a validation row of {rows.sequence_length} tokens: none is held out."
            )
        unwritable = ledger.unwritable
        if unwritable.bytes:
            self._warn(
                f"The tokenizer has no token for {unwritable.bytes} bytes in {unwritable.documents} documents: "
                "they are missing from the rows."
            )

    def _layout(self, rows: RowSettings, settings: ShardSettings, selection: Selection) -> RowLayout:
        return RowLayout(
            sequence_length=rows.sequence_length,
            packing=rows.packing,
            add_bos=rows.bos is not None,
            add_eos=rows.eos is not None,
            dtype=rows.dtype,
            cleaning=settings.cleaning,
            split=selection.split,
            validation_fraction=self.config.data.validation_fraction,
        )

    def _row_settings(self, info: TokenizerInfo, dtype: str) -> RowSettings:
        data = self.config.data
        usual = 512 if self.config.model.base else 256
        wanted = data.sequence_length
        length = min(usual, info.max_length or usual) if wanted == "auto" else wanted
        add_bos = info.adds_bos if data.add_bos == "auto" else data.add_bos
        bos, eos = info.bos_id if add_bos else None, info.eos_id if data.add_eos else None
        if data.add_bos is True and bos is None:
            self._warn("The tokenizer has no BOS: documents begin without one.")
        if data.add_eos and eos is None:
            self._warn("The tokenizer has no EOS: documents end without one.")
        pad = next(index for index in (info.pad_id, info.eos_id, 0) if index is not None)
        packing = "best-fit" if data.packing == "auto" else data.packing
        return RowSettings(length, packing, dtype, bos, eos, pad)

    def _write(self, selection: Selection, name: str, shards: Shards, rows: RowSettings) -> SplitCounts:
        part = getattr(selection, name)
        marks = rows.marks_per_document * len(part.tokens)
        self.progress.stage(f"packing {name}", float(part.tokens.sum() + marks), "tokens")
        counts = write_split(part, shards, rows, self.staging.split(name), lambda done: self.progress.advance(done))
        self.progress.end_stage()
        return counts


def _read_tables(work: Path, many: int) -> tuple[npt.NDArray[np.void], list[int]]:
    """The documents of all shards, and how many each has. One table is in memory at a time beside the whole."""
    files = [work / f"{shard_name(index)}.documents.npy" for index in range(many)]
    sizes = [len(np.load(file, mmap_mode="r")) for file in files]
    table, at = np.empty(sum(sizes), DOCUMENT), 0
    for file, size in zip(files, sizes, strict=True):
        table[at : at + size] = np.load(file)
        at += size
    return table, sizes


def _nothing_left(counts: list[TaskCounts], selection: Selection) -> str:
    reasons = ledgers.dropped_documents(counts, selection)
    told = ", ".join(f"{number} {reason}" for reason, number in reasons.items())
    return f"No text is left to train on ({told or 'no documents found'})."


def _write_rejected(path: Path, work: Path, many: int) -> None:
    """The bad records of all shards, in order, in one file."""
    with open(path, "wb") as out:
        for index in range(many):
            part = work / f"{shard_name(index)}.rejected"
            if part.is_file():
                with open(part, "rb") as lines:
                    shutil.copyfileobj(lines, out, 1 << 20)


def _result(manifest: Manifest, artifacts: Artifacts, reused: bool, started: float) -> PrepareResult:
    train, validation, tokenizer = manifest.train, manifest.validation, manifest.tokenizer
    rows, tokens = train.rows + validation.rows, train.tokens + validation.tokens
    seconds = time.perf_counter() - started
    size = manifest.ledger.bytes.read
    return PrepareResult(
        documents=manifest.ledger.documents.kept,
        bytes=size,
        tokens=tokens,
        rows=rows,
        fill=tokens / max(1, rows * manifest.settings.sequence_length),
        dropped=dict(manifest.ledger.documents.dropped),
        seconds=seconds,
        megabytes_per_second=size / 1e6 / seconds,
        tokenizer=f"{tokenizer.source}, {tokenizer.vocab_size} entries, encoded by {tokenizer.engine}",
        path=artifacts.data,
        reused=reused,
        train_rows=train.rows,
        validation_rows=validation.rows,
        validation_documents=validation.documents,
        warnings=list(manifest.warnings),
    )
