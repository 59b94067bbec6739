"""Continues the merges of a base's BPE on a text: new entries behind the old ones, each of which text can reach."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from pretrain_cli.config.model import Auto
from pretrain_cli.errors import ModelError
from pretrain_cli.interruptible import interruptible
from pretrain_cli.storage import read_json, write_json
from pretrain_cli.tokenizer.bounds import misnumbered
from pretrain_cli.tokenizer.load import open_tokenizer, shared_tokenizer

LEAST_USES, LEAST_SHARE = 50, 1e-5
"""`auto` adds no token that saves fewer tokens of the text than this, or a smaller share of them: too rare to learn."""
MOST_CHOSEN = 32_768
"""Entries that `auto` adds at most."""
COVERED = 0.9995
"""Share of a text's characters that get an entry where the base has only bytes for them, as SentencePiece has it."""
LONGEST_WORD = 64
"""Old tokens of a word that are looked at together; a longer one is cut."""
BATCH_CHARACTERS = 1 << 20
FIRST_CODE = 0x10000
"""Old token i is this character plus i while merges are learned: beyond all that separates words."""
SPACE = "▁"
LETTERS, SIGNS, SPACES = 1, 2, 3

Spec = dict[str, Any]


@dataclass(frozen=True)
class Extension:
    """What was added to a tokenizer.

    Attributes:
        first: id of the first new entry; those before it are the base's.
        characters: new entries for characters that the base writes in bytes; the others are merges.
        added: new entries in all.
    """

    first: int
    characters: int
    added: int


def extend_tokenizer(folder: Path, name: str, texts: Sequence[str], wanted: int | Auto) -> Extension:
    """Continue the merges of the tokenizer in ``folder`` on ``texts``, in place.

    A merge that would give a text that has an entry already is left out, with all that build on it. So the base's
    merges come first, in their order, and then each new one finds what it merges: every new entry can be reached
    (shown anew each time). Merges are learned as usual (Sennrich et al. 2016, arXiv 1508.07909) on words of old tokens
    (continued BPE, arXiv 2512.03989).

    Args:
        folder: with a tokenizer.json.
        name: of the base, for errors.
        texts: to learn from.
        wanted: new entries at most; "auto": as many as save enough tokens.

    Raises:
        ModelError: the tokenizer isn't a BPE of bytes, or of characters with bytes for the rest.
    """
    file = folder / "tokenizer.json"
    spec = read_json(file)
    check_extensible(spec, name)
    if told := misnumbered(shared_tokenizer(file), spec):
        raise ModelError(f"The tokenizer of {name} can't be extended: its token {told}.", "Leave out --extend-vocab.")
    vocabulary = spec["model"]["vocab"]
    # Read again, an added token without an entry would move behind the new ones.
    vocabulary.update({token["content"]: token["id"] for token in spec.get("added_tokens", [])})
    first = max(vocabulary.values()) + 1
    room = MOST_CHOSEN if wanted == "auto" else wanted
    characters = _missing_characters(spec, texts, wanted == "auto")[:room] if spec["model"].get("byte_fallback") else []
    vocabulary.update({character: first + at for at, character in enumerate(characters)})
    merges = _learn_merges(spec, texts, room - len(characters), wanted == "auto")
    vocabulary.update({"".join(merge): first + len(characters) + at for at, merge in enumerate(merges)})
    own = spec["model"]["merges"]
    as_text = bool(own) and isinstance(own[0], str)
    own += [" ".join(merge) for merge in merges] if as_text else [list(merge) for merge in merges]
    write_json(file, spec)
    _check_reached(file, [*characters, *map("".join, merges)], name)
    return Extension(first, len(characters), len(characters) + len(merges))


def check_extensible(spec: Spec, name: str) -> None:
    """Check that the merges of the tokenizer in ``spec`` can be continued; ``name`` is its base.

    Raises:
        ModelError: it is of another type, or marks word borders in a way that isn't known here.
    """
    model = spec["model"]
    kind = str(model.get("type") or ("BPE" if "merges" in model else "another type"))
    if kind != "BPE":
        raise ModelError(
            f"The tokenizer of {name} is {kind}, whose vocabulary can't be extended: it has no merges to continue.",
            "Leave out --extend-vocab, or take a base with a BPE tokenizer (Llama, Qwen, Mistral, SmolLM, Gemma).",
        )
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix") or not has_all_bytes(spec):
        raise ModelError(
            f"The tokenizer of {name} is a BPE of characters, whose vocabulary can't be extended.",
            "Leave out --extend-vocab, or take a base whose BPE knows bytes (Llama, Qwen, Mistral, SmolLM, Gemma).",
        )


def has_all_bytes(spec: Spec) -> bool:
    """Whether its entries are made of bytes, or bytes stand in for characters without an entry."""
    return bool(spec["model"].get("byte_fallback")) or _is_byte_level(spec)


def _is_byte_level(spec: Spec) -> bool:
    return "ByteLevel" in _types(spec.get("pre_tokenizer"), spec.get("normalizer"))


def pieces_of(folder: Path, first: int) -> list[list[int]]:
    """For each entry of the tokenizer in ``folder`` from id ``first`` on, the older ids that its text was made of."""
    model = read_json(folder / "tokenizer.json")["model"]
    vocabulary: dict[str, int] = model["vocab"]
    new = sorted((index, text) for text, index in vocabulary.items() if index >= first)
    pieces: dict[str, list[int]] = {}
    for merge in model["merges"][-len(new) :] if new else []:
        left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
        if vocabulary.get(left + right, -1) >= first:
            both = (_pieces(text, vocabulary, first, pieces) for text in (left, right))
            pieces[left + right] = [index for ids in both for index in ids]
    return [pieces.get(text) or _bytes_of(text, vocabulary) for _, text in new]


def _pieces(text: str, vocabulary: dict[str, int], first: int, known: dict[str, list[int]]) -> list[int]:
    if vocabulary[text] < first:
        return [vocabulary[text]]
    return known.get(text) or _bytes_of(text, vocabulary)


def _bytes_of(text: str, vocabulary: dict[str, int]) -> list[int]:
    return [vocabulary[name] for name in (f"<0x{byte:02X}>" for byte in text.encode()) if name in vocabulary]


def _types(*steps: Any) -> set[str]:
    """The types of all steps, those inside a sequence too."""
    found: set[str] = set()
    for step in steps:
        if isinstance(step, dict):
            found.add(str(step.get("type")))
            found |= _types(*step.get("pretokenizers", ()), *step.get("normalizers", ()))
    return found


def _missing_characters(spec: Spec, texts: Iterable[str], chosen: bool) -> list[str]:
    """Characters that the base writes in bytes, those that save most first; ``chosen``: only those that save enough."""
    normalizer = Tokenizer.from_str(_text(spec)).normalizer
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(normalizer.normalize_str(text) if normalizer is not None else text)
    vocabulary = spec["model"]["vocab"]
    total = counts.total()
    covered = sum(count for character, count in counts.items() if character in vocabulary or character.isspace())
    found = []
    for character, count in sorted(counts.items(), key=lambda entry: (-_saved(*entry), entry[0])):
        if character in vocabulary or character.isspace() or not character.isprintable():
            continue
        if covered >= COVERED * total or (chosen and _saved(character, count) < LEAST_USES):
            break
        covered += count
        found.append(character)
    return found


def _saved(character: str, count: int) -> int:
    """Tokens; one of a single byte saves none itself, but only as an entry can it be merged."""
    return max(1, len(character.encode()) - 1) * count


def _learn_merges(spec: Spec, texts: Sequence[str], wanted: int, chosen: bool) -> list[tuple[str, str]]:
    """At most ``wanted`` pairs of entries' texts, in the order in which they are merged."""
    if wanted <= 0:
        return []
    words = list(_words(spec, texts))
    symbols = set().union(*map(set, words)) - {"\n"} if words else set()
    tokens = sum(map(len, words))
    least = max(LEAST_USES, round(LEAST_SHARE * tokens)) if chosen else 2
    spare = wanted // 8 + 64
    while True:
        made = _train(words, len(symbols) + wanted + spare, least)
        merges = _without_repeats(spec, made, wanted)
        if len(merges) == wanted or len(made) < wanted + spare:
            return merges
        spare *= 4


def _train(words: list[str], size: int, least: int) -> list[tuple[str, str]]:
    """Merges of the characters in ``words``, which newlines separate."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Split("\n", "removed")
    trainer = trainers.BpeTrainer(vocab_size=size, min_frequency=least, show_progress=False)
    interruptible(lambda: tokenizer.train_from_iterator(words, trainer))
    return [tuple(merge) for merge in _spec(tokenizer)["model"]["merges"]]


def _without_repeats(spec: Spec, made: list[tuple[str, str]], wanted: int) -> list[tuple[str, str]]:
    """``made``, in entries' texts, without merges that give a text which has an entry, and what builds on them."""
    vocabulary = spec["model"]["vocab"]
    texts = {chr(FIRST_CODE + index): text for text, index in vocabulary.items()}
    known, merges = set(vocabulary), []
    for left, right in made:
        if left not in texts or right not in texts or texts[left] + texts[right] in known:
            continue
        merges.append((texts[left], texts[right]))
        texts[left + right] = texts[left] + texts[right]
        known.add(texts[left + right])
        if len(merges) == wanted:
            break
    return merges


def _words(spec: Spec, texts: Sequence[str]) -> Iterator[str]:
    """The texts in old tokens, one character each, a newline wherever no merge may reach across."""
    tokenizer = Tokenizer.from_str(_text(spec))
    tokenizer.encode_special_tokens = True
    tokenizer.no_truncation()
    tokenizer.no_padding()
    alone, begins, ends = _kinds(spec)
    batch: list[str] = []
    for at, text in enumerate(texts):
        batch.append(text)
        if at < len(texts) - 1 and sum(map(len, batch)) < BATCH_CHARACTERS:
            continue
        for encoding in tokenizer.encode_batch(batch, add_special_tokens=False):
            ids = np.asarray(encoding.ids, np.int64)
            if not len(ids):
                continue
            word = np.asarray([-1 if number is None else number for number in encoding.word_ids], np.int64)
            border = np.ones(len(ids), bool)
            joined = (ends[ids[:-1]] == SPACES) | (begins[ids[1:]] == ends[ids[:-1]])
            border[1:] = (word[1:] != word[:-1]) | alone[ids[1:]] | alone[ids[:-1]] | ~joined
            starts = np.flatnonzero(border)
            place = np.arange(len(ids)) - np.repeat(starts, np.diff(np.append(starts, len(ids))))
            border |= place % LONGEST_WORD == 0
            codes = np.insert(ids + FIRST_CODE, np.flatnonzero(border), ord("\n"))
            yield codes.astype("<u4").tobytes().decode("utf-32-le")
        batch = []


def _kinds(spec: Spec) -> tuple[NDArray[np.bool_], NDArray[np.int8], NDArray[np.int8]]:
    """For each id: whether it is never merged, and the kinds of what it begins and ends with.

    A byte-level BPE splits its words itself. Where no step does (SentencePiece), a word is what such a tokenizer takes
    for one: spaces before letters or before other signs; digits stay single.
    """
    vocabulary, splits = spec["model"]["vocab"], _is_byte_level(spec)
    size = max(vocabulary.values()) + 1
    alone, begins, ends = np.zeros(size, bool), np.zeros(size, np.int8), np.zeros(size, np.int8)
    for token in spec.get("added_tokens", []):
        alone[token["id"]] = True
    unknown = spec["model"].get("unk_token")
    for text, index in vocabulary.items():
        if text == unknown:
            alone[index] = True
        elif not splits:
            letters = text.lstrip(SPACE)
            kinds = {_kind(character) for character in letters}
            alone[index] |= (text.startswith("<0x") and text.endswith(">")) or len(kinds) > 1 or "N" in kinds
            begins[index] = SPACES if text.startswith(SPACE) else _number(letters[0])
            ends[index] = _number(letters[-1]) if letters else SPACES
    return alone, begins, ends


def _kind(character: str) -> str:
    category = unicodedata.category(character)[0]
    return "L" if category in "LM" else "N" if category == "N" else "S"


def _number(character: str) -> int:
    return LETTERS if _kind(character) == "L" else SIGNS


def _check_reached(file: Path, entries: list[str], name: str) -> None:
    """Encode each new entry's own text: it has to come out as that one entry.

    Raises:
        ModelError: one doesn't.
    """
    model = open_tokenizer(file).model
    lost = next((text for text in entries if [token.value for token in model.tokenize(text)] != [text]), None)
    if lost is not None:
        raise ModelError(
            f"The merges of {name} can't be continued: its tokenizer never makes the new entry '{lost}'.",
            "Leave out --extend-vocab, and report this with the name of the base.",
        )


def _text(spec: Spec) -> str:
    return json.dumps(spec, ensure_ascii=False)


def _spec(tokenizer: Tokenizer) -> Spec:
    found: Spec = json.loads(tokenizer.to_str())
    return found
