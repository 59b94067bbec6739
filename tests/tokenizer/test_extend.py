"""A base's vocabulary grows behind its old ids, and every new entry is one that text reaches."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from pretrain_cli.errors import ModelError
from pretrain_cli.tokenizer.extend import Extension, extend_tokenizer, pieces_of
from tests.support.tiny import SAMPLE, make_tokenizer

FINNISH = (
    "Kaikki ihmiset syntyvät vapaina ja tasavertaisina arvoltaan ja oikeuksiltaan. Heille on annettu järki ja "
    "omatunto, ja heidän on toimittava toisiaan kohtaan veljeyden hengessä. "
)
RUSSIAN = "Все люди рождаются свободными и равными в своем достоинстве и правах. Они наделены разумом и совестью. "
TEXT = (FINNISH + RUSSIAN + "数据 数据 3.14 3.14 x_1 == x_1 == \n\n") * 30


def make_marked(folder: Path) -> None:
    """A tokenizer.json as Llama 2's: spaces marked, bytes for characters without an entry, words never split."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    control = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=380, special_tokens=control, show_progress=False, max_token_length=8)
    tokenizer.train_from_iterator(SAMPLE.split() * 4, trainer)
    spec = json.loads(tokenizer.to_str())
    spec["added_tokens"] = [token for token in spec["added_tokens"] if token["id"] < 3]
    space = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    steps = [space, {"type": "ByteFallback"}, {"type": "Fuse"}, strip]
    spec["decoder"] = {"type": "Sequence", "decoders": steps}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(spec))


KINDS = {"bytes": make_tokenizer, "marked": make_marked}


def opened(folder: Path) -> Tokenizer:
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def vocabulary(folder: Path) -> dict[str, int]:
    return opened(folder).get_vocab(with_added_tokens=True)


def extended(folder: Path, kind: str, texts: list[str], wanted: Any) -> tuple[Tokenizer, Tokenizer, Extension]:
    shutil.rmtree(folder, ignore_errors=True)
    KINDS[kind](folder)
    before = opened(folder)
    made = extend_tokenizer(folder, "base", texts, wanted)
    return before, opened(folder), made


@pytest.mark.parametrize("kind", KINDS)
def test_old_ids_stay_and_the_text_takes_fewer_tokens(kind: str, tmp_path: Path) -> None:
    before, after, made = extended(tmp_path, kind, [TEXT], 120)
    old, new = (each.get_vocab(with_added_tokens=True) for each in (before, after))
    assert made.added == 120 and len(new) == len(old) + 120 and made.first == max(old.values()) + 1
    assert all(new[text] == index for text, index in old.items())
    assert sorted(set(new.values()) - set(old.values())) == list(range(made.first, made.first + 120))
    first, second = (len(each.encode(TEXT, add_special_tokens=False).ids) for each in (before, after))
    assert second < 0.6 * first
    ids = after.encode(TEXT, add_special_tokens=False).ids
    assert after.decode(ids).strip() == TEXT.strip()


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), wanted=st.integers(1, 150))
def test_text_reaches_every_new_entry(
    kind: str, seed: int, wanted: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """On texts of random words of few letters, where the same text is often spelled by different old tokens."""
    draw = random.Random(seed)
    letters = draw.sample("aehinorstw äя数'.-3", 9)
    words = ["".join(draw.choices(letters, k=draw.randint(1, 7))) for _ in range(60)]
    text = " ".join(draw.choices(words, k=400))
    _, after, made = extended(tmp_path_factory.getbasetemp() / f"reach-{kind}", kind, [text], wanted)
    for text, index in after.get_vocab(with_added_tokens=False).items():
        if index >= made.first:
            assert [token.id for token in after.model.tokenize(text)] == [index]


@pytest.mark.parametrize("kind", KINDS)
def test_most_new_entries_are_used_by_the_text_itself(kind: str, tmp_path: Path) -> None:
    _, after, made = extended(tmp_path, kind, [TEXT], 100)
    used = {index for index in after.encode(TEXT, add_special_tokens=False).ids if index >= made.first}
    assert len(used) > 50


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_are_what_the_base_wrote(kind: str, tmp_path: Path) -> None:
    before, after, made = extended(tmp_path, kind, [TEXT], 80)
    names = {index: text for text, index in before.get_vocab(with_added_tokens=True).items()}
    new = {index: text for text, index in after.get_vocab(with_added_tokens=True).items() if index >= made.first}
    pieces = pieces_of(tmp_path, made.first)
    assert len(pieces) == 80 and all(ids and max(ids) < made.first for ids in pieces)
    for index, ids in enumerate(pieces, made.first):
        written = "".join(names[each] for each in ids)
        assert written == new[index] or "<0x" in written


def test_added_tokens_behind_the_vocabulary_keep_their_ids(tmp_path: Path) -> None:
    """Llama 3 and Qwen have theirs behind the merges; read again, they would move behind the new entries."""
    make_tokenizer(tmp_path)
    tokenizer = opened(tmp_path)
    tokenizer.add_special_tokens([AddedToken("<|call|>", special=True), AddedToken("<|done|>", special=True)])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    before = vocabulary(tmp_path)
    made = extend_tokenizer(tmp_path, "base", [TEXT], 50)
    after = vocabulary(tmp_path)
    assert all(after[text] == index for text, index in before.items()) and made.first == before["<|done|>"] + 1
    assert opened(tmp_path).encode("a<|call|>b").ids.count(before["<|call|>"]) == 1


def test_a_merge_never_reaches_across_words_or_digits(tmp_path: Path) -> None:
    _, after, made = extended(tmp_path, "marked", ["das Haus 1234 <s> das Haus, 1234 <s> \n" * 200], 60)
    new = [text for text, index in after.get_vocab(with_added_tokens=False).items() if index >= made.first]
    assert "▁Haus" in new
    assert not [text for text in new if "▁" in text.lstrip("▁") or (len(text) > 1 and any(map(str.isdigit, text)))]


def test_auto_stops_where_a_token_saves_too_little(tmp_path: Path) -> None:
    text = "sammakko " * 300 + " ".join(f"sana{number}" for number in range(40))
    _, after, made = extended(tmp_path, "bytes", [text], "auto")
    new = {text for text, index in after.get_vocab(with_added_tokens=False).items() if index >= made.first}
    assert "Ġsammakko" in new and made.added < 20
    assert extended(tmp_path, "bytes", ["nothing repeats here"], "auto")[2].added == 0


def test_the_same_text_gives_the_same_entries(tmp_path: Path) -> None:
    both = []
    for name in ("one", "other"):
        extended(tmp_path / name, "bytes", [TEXT], 100)
        both.append((tmp_path / name / "tokenizer.json").read_bytes())
    assert both[0] == both[1]


def refused(folder: Path, tokenizer: Tokenizer) -> str:
    tokenizer.save(str(folder / "tokenizer.json"))
    with pytest.raises(ModelError) as told:
        extend_tokenizer(folder, "base", [TEXT], 10)
    assert told.value.hint and "\n" not in str(told.value.message)
    return told.value.message


def test_other_kinds_are_refused(tmp_path: Path) -> None:
    unigram = Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0), ("b", -2.0)], unk_id=0))
    assert "is Unigram" in refused(tmp_path, unigram)
    wordpiece = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1, "##b": 2}, unk_token="[UNK]"))
    assert "is WordPiece" in refused(tmp_path, wordpiece)
    characters = Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]))
    characters.pre_tokenizer = pre_tokenizers.Whitespace()
    assert "BPE of characters" in refused(tmp_path, characters)
    suffixed = Tokenizer(models.BPE({"a": 0, "b</w>": 1}, [], end_of_word_suffix="</w>"))
    suffixed.decoder = decoders.BPEDecoder()
    assert "BPE of characters" in refused(tmp_path, suffixed)
