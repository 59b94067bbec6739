"""Lets a base write general text itself, to be mixed into the user's own where there is no other."""

from __future__ import annotations

import time
from collections.abc import Iterator

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.base import whole_name
from pretrain_cli.config.load import changed
from pretrain_cli.config.model import Config
from pretrain_cli.data.choosing.replay import own_samples, wanted_bytes, write_texts
from pretrain_cli.data.reading.sources import find_sources
from pretrain_cli.errors import UsageError
from pretrain_cli.formatting import byte_size
from pretrain_cli.generation.opening import open_model
from pretrain_cli.model.names import find_model
from pretrain_cli.progress import SILENT, Progress

SAMPLES, SAMPLE_TOKENS = 16, 512
"""Texts that are written at once, and tokens of each at most."""


def write_own_replay(config: Config, artifacts: Artifacts, progress: Progress = SILENT) -> None:
    """Write the base's own samples for ``data.replay``, once, into the artifact folder.

    Each is drawn from the model as it is, from the beginning of a document on (temperature 1, nothing cut off): what
    the base finds probable stands for what it was trained on. Nothing is done where ``data.replay_source`` names text.

    Raises:
        UsageError: there is neither a base nor other text.
        ModelError: the base isn't there, or is damaged.
        DataError: the user's text isn't there, or its size isn't known.
    """
    if not config.data.replay or config.data.replay_source:
        return
    if not config.model.base:
        raise UsageError(
            "--replay mixes in general text, and there is neither a base that could write it nor other text.",
            "Name some: --replay-source FOLDER, or hf://datasets/OWNER/NAME",
        )
    config = changed(config, model__base=whole_name(config.model.base))
    wanted = wanted_bytes(find_sources(config.data, artifacts.root), config.data)
    file = own_samples(config, artifacts, wanted)
    if not file.is_file():
        progress.stage(f"writing {byte_size(wanted)} of general text with the base", wanted, "bytes")
        write_texts(file, _written(config, artifacts, wanted, progress))
        progress.end_stage()


def _written(config: Config, artifacts: Artifacts, wanted: int, progress: Progress) -> Iterator[str]:
    settings = config.generate.model_copy(
        update={
            "samples": SAMPLES, "max_tokens": SAMPLE_TOKENS, "temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0,
            "repetition_penalty": 1.0, "greedy": False, "stop": (), "probabilities": False, "chat": False,
        }
    )  # fmt: skip
    writer = open_model(find_model(config.model.base, artifacts), settings, artifacts, progress)
    seed, done, empty = config.data.seed, 0, 0
    while done < wanted and empty < SAMPLES:
        now = settings.model_copy(update={"seed": seed})
        seed += SAMPLES
        for sample in writer.write([""], now, progress.warn, None, time.perf_counter()):
            text = sample.text.strip()
            empty = 0 if text else empty + 1
            if text and done < wanted:
                yield text
                done += len(text.encode())
        progress.advance(min(done, wanted))
