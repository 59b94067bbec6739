"""Recognizes the parts of a data set in a folder that aren't text to train on: test splits, its card, its records."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from pretrain_cli.data.reading.file_table import FileTable
from pretrain_cli.data.reading.formats import COMPRESSIONS, format_of
from pretrain_cli.data.reading.input_files import InputFile
from pretrain_cli.small_files import no_wait

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing", "devtest"), "test"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "eval", "evaluation", "heldout", "holdout"), "validation"),
}
"""Names of splits, as the Hub's data sets have them → the split."""
TABLES = {"jsonl", "json", "csv", "tsv", "parquet", "arrow"}
METADATA = {"dataset_info.json", "state.json"}
"""Written by `save_to_disk` of `datasets`, both in each folder of a data set."""
ALWAYS_METADATA = {"dataset_dict.json", "dataset_infos.json"}
CARD = "readme.md"
_WORDS = "|".join([r"dev[-_]test|held[-_]out", *sorted(SPLITS, key=len, reverse=True)])
_TWO_WORDS = re.compile(r"(?<![a-z])(dev[-_]test|held[-_]out)(?![a-z])")
MAY_BE_SPLIT = re.compile(rf"[-_. /](?:{_WORDS})\d*(?=[-_. /])".encode(), re.IGNORECASE)
MAY_BE_METADATA = re.compile(rb"/(?:dataset_infos?\.json|dataset_dict\.json|state\.json|cache-[^/]*)(?=/)")
MAY_BE_CARD = re.compile(rb"/readme\.md(?=/)", re.IGNORECASE)
"""What the names, a "/" between each, match that `left_out` must look at: of a million files, hardly any."""
Key = tuple[str, ...]


def left_out(root: str, files: FileTable) -> dict[int, str]:
    """The places in ``files`` of those that aren't trained on, with the reason; ``root``: folder they were found in."""
    found = dict(_metadata(files))
    places = files.named_like(MAY_BE_SPLIT, root)
    keys = ((place, _split_of(*os.path.split(files.path(place)), root, files.format(place))) for place in places)
    splits = {place: key for place, key in keys if key}
    found |= dict.fromkeys(_cards(files, splits, found), "dataset_card")
    keyed = [(place, *key) for place, key in splits.items() if place not in found]
    trained = {key for _, split, key in keyed if split == "train"}
    return found | {place: f"{split}_split" for place, split, key in keyed if split != "train" and key in trained}


def left_out_of_archive(archive: str, names: Sequence[str]) -> dict[str, str]:
    """The files in an archive that aren't trained on, with the reason."""
    table = FileTable(InputFile(f"{archive}/{name}", 0, 0, *format_of(name)) for name in names)
    return {names[place]: reason for place, reason in left_out(archive, table).items()}


def may_be_left_out(name: str) -> bool:
    """Whether a file in an archive may be of a test split, or a data set's card or record, by its own name."""
    raw = f"/{name}/".encode(errors="replace")
    return any(pattern.search(raw) for pattern in (MAY_BE_SPLIT, MAY_BE_METADATA, MAY_BE_CARD))


def _metadata(files: FileTable) -> Iterator[tuple[int, str]]:
    places = {place: Path(files.path(place)) for place in files.named_like(MAY_BE_METADATA)}
    names: dict[Path, set[str]] = {}
    for path in places.values():
        if path.name in METADATA:
            names.setdefault(path.parent, set()).add(path.name)
    saved = {folder for folder, inside in names.items() if inside == METADATA}
    for place, path in places.items():
        in_saved = path.parent in saved and (path.name in METADATA or path.name.startswith("cache-"))
        if in_saved or (path.name in ALWAYS_METADATA and files.format(place) == "json"):
            yield place, "dataset_metadata"


def _cards(files: FileTable, splits: Mapping[int, tuple[str, Key]], others: Container[int]) -> Iterator[int]:
    """Each README.md that describes tables below it: it begins with metadata, or they are named as splits are."""
    cards = [place for place in files.named_like(MAY_BE_CARD) if files.format(place) and place not in others]
    if not cards:
        return
    above, above_splits = _above(files, files.of_formats(TABLES)), _above(files, splits)
    for place in cards:
        path = Path(files.path(place))
        if path.parent in above and (_begins_with_metadata(path) or path.parent in above_splits):
            yield place


def _above(files: FileTable, places: Iterable[int]) -> set[Path]:
    """All folders above some of the files."""
    folders: set[Path] = set()
    for folder in {os.path.dirname(files.path(place)) for place in places if files.format(place) in TABLES}:
        path = Path(folder)
        while path not in folders:
            folders.add(path)
            path = path.parent
    return folders


def _begins_with_metadata(path: Path) -> bool:
    try:
        with open(path, "rb", opener=no_wait) as stream:
            return stream.read(8).removeprefix(b"\xef\xbb\xbf").startswith((b"---\n", b"---\r\n"))
    except OSError:
        return False


def _split_of(folder: str, name: str, root: str, format: str) -> tuple[str, Key] | None:
    """(split, what is alike in the names of one data set's splits); None for a file of no split.

    A folder's name says it, or a word of the file's, rather the first or last: ``train-00000-of-00002``, ``wiki.test``.
    """
    folders, in_folder = _split_of_folder(folder, root)
    if in_folder:
        return in_folder
    plain = _TWO_WORDS.sub(lambda found: re.sub("[-_]", "", found[0]), name.lower())
    words = [word for word in re.split(r"[-_. ]+", plain)[:-1] if word]
    if plain.endswith(tuple(COMPRESSIONS)):  # the ending before it is no word of the name
        words.pop()
    # In the middle too, as in corpus.dev.en.txt: only what has a train split of the same name is left out.
    for place in (0, *range(len(words) - 1, 0, -1)) if words else ():
        if split := SPLITS.get(words[place].rstrip("0123456789")):
            rest = [
                word for number, word in enumerate(words) if number != place and not word.isdigit() and word != "of"
            ]
            return split, (*folders, *rest, "" if format in TABLES else format)
    return None


@functools.lru_cache(maxsize=64)  # the files of a folder come one after the other
def _split_of_folder(folder: str, root: str) -> tuple[Key, tuple[str, Key] | None]:
    folders = Path(folder).relative_to(root).parts
    for place, name in enumerate(folders):
        if split := SPLITS.get(name.lower()):
            return folders, (split, (*folders[:place], "*"))
    return folders, None
