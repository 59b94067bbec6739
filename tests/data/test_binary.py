"""What isn't text is never trained on as text, whatever its name; what is only encoded otherwise is read."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import struct
from pathlib import Path

import pytest
import zstandard

from pretrain_cli.data.reading.input_files import Span
from pretrain_cli.data.reading.inputs import find_files
from pretrain_cli.data.reading.small_files import read_simple
from pretrain_cli.errors import DataError
from tests.support.reading import read_path

LANGUAGES = {
    "English": "It was a dark and stormy night; the rain fell in torrents. ",
    "Russian": "Была тёмная и бурная ночь, дождь лил как из ведра. ",
    "Chinese": "那是一个漆黑的暴风雨之夜。大雨倾盆而下，\n",
}


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_wide_encodings_without_a_mark_are_found_and_told(tmp_path: Path, language: str, encoding: str) -> None:
    text = LANGUAGES[language] * 500
    (tmp_path / "a.txt").write_bytes(text.encode(encoding))
    found = read_path(tmp_path / "a.txt")
    assert found.texts == [text]
    assert found.settings.notes == [f"{tmp_path / 'a.txt'} isn't UTF-8: read as {encoding}."]


BINARY = {
    "numbers": struct.pack("<2000i", *range(2000)),
    "reals": struct.pack("<2000f", *(number * 1.5 for number in range(2000))),
    "random": os.urandom(8000),
    "nothing but NULs": bytes(8000),
    "text and NULs": b"some text\n" * 100 + bytes(600),
    "old word": b"\xd0\xcf\x11\xe0" + b"text " * 400,
    "rtf": b"{\\rtf1\\ansi A text with {\\b commands} in it.}",
    "sqlite": b"SQLite format 3\0" + b"CREATE TABLE a text " * 90,
    "zip": b"PK\x03\x04" + b"text " * 400,
    "tar": b"a.txt".ljust(257, b"\0") + b"ustar\0" + b"text " * 4000,
    "gzip": b"\x1f\x8b\x08\0" + b"text " * 400,
    "pdf": b"%PDF-1.7\n" + b"text " * 400,
    "film": b"\0\0\0\x18ftypmp42" + b"text " * 400,
}


@pytest.mark.parametrize("kind", BINARY)
@pytest.mark.parametrize("encoding", ["auto", "latin-1"])
def test_binary_with_a_text_ending_is_refused_with_the_byte(tmp_path: Path, kind: str, encoding: str) -> None:
    (tmp_path / "a.txt").write_bytes(BINARY[kind])
    if (kind, encoding) == ("random", "latin-1"):  # asked for, and each byte is a character
        pytest.skip("told apart by nothing")
    with pytest.raises(DataError, match=r"text.*byte"):
        read_path(tmp_path / "a.txt", encoding=encoding)


def test_a_page_and_japanese_mail_in_a_text_file_are_no_plain_text(tmp_path: Path) -> None:
    page = "<!DOCTYPE html>\n<html><head><script>a()</script></head><body><p>The text of a page.</p></body></html>"
    (tmp_path / "a.txt").write_text(page)
    (tmp_path / "b.txt").write_bytes("今日は天気がいいので公園を散歩しました。".encode("iso2022_jp"))
    assert read_path(tmp_path / "a.txt").texts == ["The text of a page."]
    assert read_path(tmp_path / "b.txt").texts == ["今日は天気がいいので公園を散歩しました。"]
    for file in find_files([str(tmp_path)]):
        assert read_simple(Span(file)) is None, "the quick way must leave it to the reader"


def test_text_in_two_encodings_is_refused_and_another_one_from_the_middle_on_is_named(tmp_path: Path) -> None:
    prose = "Die Straße führt über die Brücke, müde Männer hören schöne Lieder.\n" * 20
    (tmp_path / "a.txt").write_bytes(prose.encode() + prose.encode("cp1252"))
    with pytest.raises(DataError, match="UTF-8 in some places and isn't in others"):
        read_path(tmp_path / "a.txt")
    (tmp_path / "b.txt").write_bytes(b"A preface in English.\n" * 40_000 + prose.encode("cp1252"))
    with pytest.raises(DataError, match="UTF-8 up to byte 880,008") as caught:
        read_path(tmp_path / "b.txt")
    assert "data.encoding=cp1252" in caught.value.hint and "iconv" not in caught.value.hint
    assert read_path(tmp_path / "b.txt", encoding="cp1252").texts[0].endswith(prose)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Příliš žluťoučký kůň úpěl ďábelské ódy. Dnes je krásný den a jdeme do parku. ", "cp1250"),
        ("Zażółć gęślą jaźń, a potem idź na spacer do parku, bo dziś jest piękny dzień. ", "cp1250"),
        ("Die Straße führt über die Brücke, müde Männer hören schöne Lieder. ", "mac_roman"),
        ("Også på øen er der æbler, og børnene får små kager før aften. ", "cp1252"),
        ("Hyvää päivää, tänään on kaunis sää ja menemme järvelle pyöräilemään. ", "cp1252"),
    ],
)
def test_letters_are_right_in_eastern_and_western_encodings(tmp_path: Path, text: str, encoding: str) -> None:
    (tmp_path / "a.txt").write_bytes((text * 20).encode(encoding))
    assert read_path(tmp_path / "a.txt").texts == [text * 20]


OLD = {
    "Árvíztűrő tükörfúrógép. Ma szép idő van, és elmegyünk sétálni az erdőbe a gyerekekkel.": "iso8859-2 cp1250 cp852",
    "Astăzi mergem în oraş să cumpărăm pâine şi brânză, apoi ne întoarcem acasă împreună.": "iso8859-2 cp1250",
    "Příliš žluťoučký kůň úpěl ďábelské ódy. Dnes je krásný den a jdeme do parku.": "iso8859-2 cp852",
    "Zażółć gęślą jaźń, a potem idź na spacer do parku, bo dziś jest piękny dzień.": "iso8859-2 cp1250",
    "Pijamalı hasta yağız şoföre çabucak güvendi. Bugün hava çok güzel, parka gidiyoruz.": "cp1254 cp857",
    "Šiandien gražus oras, ir mes einame pasivaikščioti į mišką su draugais.": "cp1257 iso8859-4",
    "Съешь же ещё этих мягких французских булок, да выпей чаю.": "koi8-r cp1251 cp866 iso8859-5 mac-cyrillic",
    "Σήμερα ο καιρός είναι καλός και πηγαίνουμε βόλτα στο δάσος.": "cp1253 iso8859-7 cp737",
    "דג סקרן שט בים מאוכזב ולפתע מצא לו חברה. היום מזג האוויר יפה.": "cp1255 cp862",
    "نص حكيم له سر قاطع وذو شأن عظيم مكتوب على ثوب أخضر.": "cp1256 iso8859-6",
    "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า กว่าบรรดาฝูงสัตว์เดรัจฉาน": "tis-620",
    "今日は天気がいいので、みんなで公園を散歩しました。": "shift_jis euc_jp iso2022_jp",
    "오늘은 날씨가 좋아서 공원에 산책하러 갔습니다.": "euc_kr iso2022_kr",
    "那是一个漆黑的暴风雨之夜。大雨倾盆而下，我们在房子里读书。": "gb2312 gb18030 hz utf-16-le",
    "那是一個漆黑的暴風雨之夜。大雨傾盆而下，我們在房子裡讀書。": "big5",
    "Portez ce vieux whisky au juge blond. Où êtes-vous allés hier, près de la forêt ?": "cp1252 cp850 mac_roman",
    "Schöne Grüße aus München, wo es über Nacht geschneit hat.": "utf-7",
}


@pytest.mark.parametrize(("text", "encoding"), [(text, name) for text, names in OLD.items() for name in names.split()])
def test_old_encodings_are_found_and_told_with_some_words(tmp_path: Path, text: str, encoding: str) -> None:
    text = f"{text}\n" * 8
    (tmp_path / "a.txt").write_bytes(text.encode(encoding))
    found = read_path(tmp_path / "a.txt")
    assert found.texts == [text]
    assert len(found.settings.notes) + len(found.settings.doubts) == 1, "no guess without a word"
    [told] = [*found.settings.notes, *found.settings.doubts]
    assert "isn't UTF-8: read as" in told


def test_a_guess_that_may_be_wrong_is_a_warning_that_names_words_and_the_setting(tmp_path: Path) -> None:
    text = "Sot është një ditë e bukur dhe ne po shkojmë në park me fëmijët tanë të vegjël.\n" * 40
    (tmp_path / "a.txt").write_bytes(b"A preface in plain English.\n" * 9000 + text.encode("cp1252"))
    found = read_path(tmp_path / "a.txt")
    assert found.texts[0].endswith(text) and found.settings.notes == []
    [doubt] = found.settings.doubts
    assert "read as cp1252 (është, një, ditë), which may be wrong" in doubt
    assert "--set data.encoding=NAME" in doubt


@pytest.mark.parametrize("head", ["", '<meta charset="koi8-r">', '<meta charset="utf-8">', '<meta charset="latin1">'])
def test_a_page_in_an_old_encoding_is_read_whatever_it_declares(tmp_path: Path, head: str) -> None:
    text = "Сегодня хорошая погода, и мы идём гулять в лес вместе с друзьями."
    page = f"<html><head>{head}</head><body><article><p>{text}</p></article></body></html>"
    (tmp_path / "a.html").write_bytes(page.encode("koi8-r"))
    found = read_path(tmp_path / "a.html")
    assert found.texts == [text]
    told = [*found.settings.notes, *found.settings.doubts]
    assert bool(told) == ("koi8" not in head), "a guess is told"


def test_code_that_looks_like_escapes_stays_as_it_is(tmp_path: Path) -> None:
    text = "re.compile(r'~{2}+abc-') # +ABCD- and ~{x~}\n\x1b$ls\n"
    (tmp_path / "a.txt").write_text(text)
    assert read_path(tmp_path / "a.txt").texts == [text]


def test_nuls_after_the_beginning_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"A line of text.\n" * 70_000 + bytes(900_000))
    with pytest.raises(DataError, match=r"NUL or control bytes \(byte 1,120,000\)"):
        read_path(tmp_path / "a.txt")


def test_text_may_begin_as_some_binary_files_do(tmp_path: Path) -> None:
    for start in ("OTTO was a king.", "RIFF is a format.", "ID3 tags", "MZ", "GGUF holds weights", "BZh?"):
        (tmp_path / "a.txt").write_text(start)
        assert read_path(tmp_path / "a.txt").texts == [start]


@pytest.mark.parametrize("before", [1_000, 900_000])
def test_a_damaged_byte_is_told_with_its_place_and_no_other_encoding_is_advised(tmp_path: Path, before: int) -> None:
    text = ("数据 naïve café. " * 60_000).encode()
    cut = text[:before].decode(errors="ignore").encode()
    (tmp_path / "a.txt").write_bytes(cut + b"\xff\xfe" + text)
    with pytest.raises(DataError, match=f"damaged at byte {len(cut):,}") as caught:
        read_path(tmp_path / "a.txt")
    assert "latin" not in caught.value.hint and "--on-error skip" in caught.value.hint and "iconv" in caught.value.hint


def test_zstd_with_a_long_window_is_read(tmp_path: Path) -> None:
    long = zstandard.ZstdCompressionParameters.from_level(3, window_log=28, enable_ldm=True)
    packer = zstandard.ZstdCompressor(compression_params=long).compressobj()
    (tmp_path / "a.txt.zst").write_bytes(packer.compress(b"A text. " * 99) + packer.flush())
    assert read_path(tmp_path / "a.txt.zst").texts == ["A text. " * 99]


PACK = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstandard.compress}


@pytest.mark.parametrize("ending", PACK)
def test_a_compressed_file_that_is_cut_or_goes_on_as_something_else_is_told(tmp_path: Path, ending: str) -> None:
    text = "".join(f"Line {number} of a text that is long enough.\n" for number in range(30_000)).encode()
    packed, path = PACK[ending](text), tmp_path / f"a.txt.{ending}"
    path.write_bytes(packed + packed)
    assert "".join(read_path(path).texts).encode() == text * 2
    for wrong in (packed[:-9], packed[: len(packed) // 2], packed + packed[:-9], packed + b"not compressed"):
        path.write_bytes(wrong)
        with pytest.raises(DataError, match="can't be read"):
            read_path(path)


def test_skippable_frames_and_zeros_between_streams_are_passed_over(tmp_path: Path) -> None:
    skipped = (0x184D2A51).to_bytes(4, "little") + (5).to_bytes(4, "little") + b"hello"
    (tmp_path / "a.txt.zst").write_bytes(skipped + zstandard.compress(b"A text. ") + skipped)
    (tmp_path / "b.txt.xz").write_bytes(lzma.compress(b"A text. ") + bytes(8) + lzma.compress(b"And more. "))
    assert read_path(tmp_path).texts == ["A text. ", "A text. And more. "]


@pytest.mark.parametrize("half", [b"\xed\xa0\x80", b"\xed\xa0\xbd\xed\xb8\x80"])
def test_half_a_character_of_utf16_is_damage_and_no_other_encoding(tmp_path: Path, half: bytes) -> None:
    (tmp_path / "a.txt").write_bytes(b"A line of text.\n" * 20 + half + b"A line of text.\n" * 20)
    with pytest.raises(DataError, match="UTF-8, but damaged at byte 320"):
        read_path(tmp_path / "a.txt")


def test_text_that_goes_on_in_utf16_is_refused(tmp_path: Path) -> None:
    line = "A line of text that is long enough to be told from letters of another script.\n"
    (tmp_path / "a.txt").write_bytes((line * 20).encode() + (line * 20).encode("utf-16"))
    with pytest.raises(DataError, match="isn't text"):
        read_path(tmp_path / "a.txt")


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.json", "a.csv", "a.parquet", "a.arrow"])
def test_a_pointer_of_git_lfs_is_no_text(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    with pytest.raises(DataError, match="pointer of git-lfs"):
        read_path(tmp_path / name)
