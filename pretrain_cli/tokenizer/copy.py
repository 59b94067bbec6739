"""Copies a tokenizer from a folder, a file or a base into a folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from tokenizers import Tokenizer

from pretrain_cli.artifacts import TOKENIZER_FILES
from pretrain_cli.base import Base
from pretrain_cli.errors import DataError, ModelError, first_line
from pretrain_cli.gguf_header import header_hash
from pretrain_cli.refusals import check_decodable
from pretrain_cli.storage import copy_file, source_hash, user_path, write_json
from pretrain_cli.tokenizer.gguf_files import drop_made_up, kept_files, write_tokenizer_files
from pretrain_cli.tokenizer.load import BOS_NAMES, EOS_NAMES, PAD_NAMES, shared_tokenizer
from pretrain_cli.tokenizer.sentencepiece_model import NAMES, check_ids, need_sentencepiece, sentencepiece_file

COMPANIONS = ("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "added_tokens.json")
OLDER_FORMS = (*NAMES, "tokenizer_config.json", "vocab.json", "vocab.txt")


def copy_tokenizer(source: str | Path | Base, folder: Path) -> None:
    """Save the tokenizer of ``source`` (a folder, a tokenizer.json, or a base) into ``folder``.

    Raises:
        DataError: the path holds no tokenizer.
        ModelError: the base has no tokenizer that can be loaded.
    """
    if isinstance(source, Base) and source.kind == "adapter":
        own = (Path(source.location) / "tokenizer.json").is_file()
        copy_tokenizer(Path(source.location) if own or source.below is None else source.below, folder)
        return
    if isinstance(source, Base) and source.kind != "folder":
        _save_from_base(source, folder)
        return
    check_decodable(source.name if isinstance(source, Base) else source, "Rename it, or make a link to it: ln -s")
    path = user_path(str(source.location if isinstance(source, Base) else source))
    if not path.exists():
        raise DataError(f"No tokenizer at {path}.", "Give a tokenizer.json, or a folder that holds one.")
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        if isinstance(source, Base) and not any((path / name).is_file() for name in OLDER_FORMS):
            # transformers would make up a tokenizer without a single entry from config.json
            raise ModelError(f"The base {source.name} has no tokenizer.", "Give one with --tokenizer tokenizer.json.")
        if isinstance(source, Base) or (path / "tokenizer_config.json").is_file():
            _save_from_base(Base(str(path), "folder", str(path)), folder)  # transformers converts older formats
            return
        raise DataError(f"No tokenizer.json in {path}.", "Give a tokenizer.json, or a folder that holds one.")
    tokenizer = shared_tokenizer(file)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, folder / "tokenizer.json")
    for name in COMPANIONS:
        if (file.parent / name).is_file():
            copy_file(file.parent / name, folder / name)
    if not (folder / "tokenizer_config.json").is_file():
        _write_settings(folder, tokenizer)


def tokenizer_hash(base: Base) -> str:
    """Names what the tokenizer of a base is made of, by its bytes; empty for one of the Hub.

    Raises:
        OSError: a file can't be read.
    """
    own = Path(base.location) / "tokenizer.json"
    if base.kind == "adapter" and not own.is_file() and base.below is not None:
        return tokenizer_hash(base.below)
    if base.kind == "gguf":
        return header_hash(Path(base.location))
    if base.kind == "hub":
        return ""
    return source_hash([own] if own.is_file() else tokenizer_files(own.parent))


def tokenizer_files(folder: Path) -> list[Path]:
    """The files in a model's ``folder`` that say what text becomes, in whatever form."""
    return [
        folder / name
        for name in ("tokenizer.json", *OLDER_FORMS, *COMPANIONS, "merges.txt")
        if (folder / name).is_file()
    ]


def copy_tokenizer_files(source: Path, folder: Path) -> None:
    """Copy a tokenizer's files from its folder ``source`` into a model's; none of the model's own is replaced.

    What else is there is somebody's, and nobody asked to pass it on with the model.
    """
    for name in TOKENIZER_FILES:
        if (source / name).is_file() and not (folder / name).exists():
            copy_file(source / name, folder / name)


def _write_settings(folder: Path, tokenizer: Tokenizer) -> None:
    """A config for a bare tokenizer.json, so that AutoTokenizer opens the folder and knows its BOS and EOS."""
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    settings: dict[str, object] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
    }
    for key, names in (("bos_token", BOS_NAMES), ("eos_token", EOS_NAMES), ("pad_token", PAD_NAMES)):
        found = next((name for name in names if name in vocabulary), None)
        if found:
            settings[key] = found
    write_json(folder / "tokenizer_config.json", settings)


def _save_from_base(base: Base, folder: Path) -> None:
    from transformers import AutoTokenizer

    if base.kind == "gguf" and write_tokenizer_files(kept_files(Path(base.location)), folder):
        return
    pieces = sentencepiece_file(Path(base.location)) if base.kind == "folder" else None
    if pieces is not None:
        need_sentencepiece(pieces)
    try:
        if base.kind == "gguf":
            path = Path(base.location)
            tokenizer = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name, trust_remote_code=False)
        else:
            tokenizer = AutoTokenizer.from_pretrained(base.location, trust_remote_code=False)
    except Exception as error:  # transformers raises many kinds of errors
        missing = base.kind == "folder" and not (Path(base.location) / "tokenizer.json").is_file()
        reason = "it has no tokenizer.json, and none can be made of its other files" if missing else first_line(error)
        raise ModelError(
            f"The tokenizer of {base.name} can't be loaded: {reason}.",
            "Give one with --tokenizer tokenizer.json.",
        ) from error
    tokenizer.save_pretrained(folder)
    if not (folder / "tokenizer.json").is_file():
        raise ModelError(
            f"The tokenizer of {base.name} can't be saved as a tokenizer.json.",
            "Give one with --tokenizer tokenizer.json.",
        )
    if base.kind == "gguf":
        drop_made_up(folder, Path(base.location))
    if pieces is not None:
        check_ids(pieces, folder)
