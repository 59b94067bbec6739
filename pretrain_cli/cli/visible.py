"""Shows control characters as symbols: sent to a terminal as they are, they could do anything to it.

An escape sequence in a text, a file's name or a model's output can change the clipboard (OSC 52), the window's title,
or what was printed before. Everything that a command prints goes through `visible`.
"""

from __future__ import annotations

from pretrain_cli.addresses import redact

SYMBOLS = {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\t\n"} | {0x7F: "\u2421"}
"""C0 controls and DEL → Unicode's pictures of them: ␛ for ESC."""
SPELLED = {code: f"\\x{code:02x}" for code in range(0x80, 0xA0)} | {0x2028: "\\u2028", 0x2029: "\\u2029"}
"""C1 controls, which have no pictures, and Unicode's own line ends."""
BYTES = {0xDC00 + byte: f"\\x{byte:02x}" for byte in range(0x80, 0x100)}
"""A file name's bytes that aren't UTF-8: written out, they would become raw bytes again."""
VISIBLE = str.maketrans(SYMBOLS | SPELLED | BYTES)
IN_JSON = str.maketrans(
    {code: f"\\u{code:04x}" for code in (*range(0x7F, 0xA0), 0x2028, 0x2029, *range(0xD800, 0xE000))}
)
"""What `json.dumps` leaves as it is, in a form that JSON reads back to the same."""


def visible(text: str) -> str:
    """``text`` without control characters other than line ends and tabs; those are shown as symbols."""
    return text if text.isprintable() else text.translate(VISIBLE)


def shown(text: str) -> str:
    """``text`` for people: `visible`, with addresses that hold no secrets."""
    return visible(redact(text))


def one_line(text: str) -> str:
    """``text`` as `shown`, in one line: a file's name may have a line end in it."""
    return shown(text).replace("\n", "\u240a")


def json_text(text: str) -> str:
    """JSON that a terminal can't take for commands."""
    return text if text.isprintable() else text.translate(IN_JSON)
