"""Counts how many texts in old encodings are read rightly: `pip install django && python benchmarks/old_encodings.py`.

The texts are Django's own translations, of 500 bytes (three) and 20 kB (one) in each encoding that a language was
written in. "doubted" are those with a warning that the guess may be wrong.
"""

from __future__ import annotations

import collections
import gettext
import random
import re
from pathlib import Path

from pretrain_cli.data.reading.charsets import find_encoding
from pretrain_cli.errors import DataError

TEXTS = ((500, 3), (20_000, 1))
LEAST_CHARACTERS = 25
LATIN_2, WESTERN, GREEK = "iso8859-2 cp1250 cp852", "cp1252 cp850 cp437 mac_roman", "cp1253 iso8859-7 cp737 mac_greek"
ENCODINGS = {
    **dict.fromkeys(("hu", "pl"), LATIN_2),
    **dict.fromkeys(("sk", "hr", "sl"), "iso8859-2 cp1250"),
    "cs": f"{LATIN_2} mac_latin2",
    "ro": f"{LATIN_2} iso8859-16",
    "sr_Latn": "cp1250",
    **dict.fromkeys(("sq", "nl", "is", "ca", "ga", "eu"), "cp1252"),
    "tr": "cp1254 iso8859-9 cp857",
    "fr": f"{WESTERN} iso8859-15",
    **dict.fromkeys(("de", "es"), WESTERN),
    **dict.fromkeys(("it", "pt", "fi"), "cp1252 cp850"),
    "sv": "cp1252 cp850 mac_roman",
    **dict.fromkeys(("da", "nb"), "cp1252 cp865"),
    "et": "cp1257 iso8859-15",
    **dict.fromkeys(("lv", "lt"), "cp1257 iso8859-13 iso8859-4"),
    "ru": "cp1251 koi8-r cp866 iso8859-5 mac_cyrillic",
    "uk": "cp1251 koi8-u mac_cyrillic cp1125",
    **dict.fromkeys(("bg", "mk"), "cp1251 iso8859-5"),
    **dict.fromkeys(("sr", "be", "mn"), "cp1251"),
    "el": GREEK,
    "he": "cp1255 iso8859-8 cp862",
    "ar": "cp1256 iso8859-6",
    "fa": "cp1256",
    "th": "cp874 tis-620",
    "ja": "shift_jis cp932 euc_jp iso2022_jp",
    "ko": "euc_kr cp949 johab iso2022_kr",
    "zh_Hans": "gb2312 gbk gb18030 hz",
    "zh_Hant": "big5 cp950 big5hkscs",
    "kk": "kz1048 ptcp154",
}


def sentences(language: str) -> list[str]:
    """The longer translations into a language, in an order of their own."""
    import django

    found: dict[str, None] = {}
    for path in sorted(Path(django.__file__).parent.rglob(f"locale/{language}/LC_MESSAGES/*.mo")):
        with path.open("rb") as file:
            catalog = gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined]
        for key, text in catalog.items():
            original = key[0] if isinstance(key, tuple) else key
            if len(original) > LEAST_CHARACTERS and text != original:
                plain = re.sub(r"%\([a-z_]+\)[sd]|%[sd]|<[^>]+>|\{[^}]*\}|[\"“”„']", "", text)
                found[" ".join(plain.split())] = None
    shuffled = list(found)
    random.Random(0).shuffle(shuffled)
    return shuffled


def main() -> None:
    counts: collections.Counter[tuple[int, str]] = collections.Counter()
    for language, names in ENCODINGS.items():
        own = sentences(language)
        for name in names.split():
            for size, number in TEXTS:
                for start in range(number):
                    at = start * 37 % len(own)
                    text = "\n".join(own[at:] + own[:at])
                    if language == "ro" and name != "iso8859-16":
                        text = text.translate(str.maketrans("șțȘȚ", "şţŞŢ"))
                    raw = (text * (2 * size // len(text) + 1)).encode(name, "ignore")[:size].rpartition(b"\n")[0]
                    counts[size, judge(raw, name)] += 1
    for (size, verdict), count in sorted(counts.items()):
        print(f"{size:>6,} bytes  {verdict:<16} {count}")


def judge(raw: bytes, name: str) -> str:
    """What became of a text: "right", "wrong", each also "doubted", or "refused"."""
    try:
        found = find_encoding(raw, "auto", "text", complete=True)
    except DataError:
        return "refused"
    right = raw.decode(found.name, "replace") == raw.decode(name, "replace")
    return f"{'right' if right else 'wrong'}{', doubted' if found.doubt else ''}"


if __name__ == "__main__":
    main()
