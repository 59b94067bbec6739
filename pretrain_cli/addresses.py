"""Takes what may be secret out of addresses, for everything that is written down or shown.

The user part of an address (``user:password@``) and its query (a token, a presigned URL's signature) open files; they
don't belong in a record, a report or a message. `redact` is what every record and every message goes through.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

REDACTED = "redacted"
SCHEME = r"(?:[A-Za-z][A-Za-z0-9+.-]*://|https?:/(?!/))"
IN_TEXT = re.compile(SCHEME + r"(?:[^\s/@]*:[^\s/@]*@)?[^\s'\"<>`]+")
"""An address in a sentence, its password with any signs in it; one slash where a path made of it has lost the other."""
PARTS = re.compile(
    rf"(?P<scheme>{SCHEME})(?P<user>(?:[^/?#]*|[^/?#@]*:(?!\d+(?:[/?#]|$))[^@]*)@)?(?P<rest>.*)", re.DOTALL
)
"""A password with a slash in it is not valid, and is a secret all the same."""
CHAIN = re.compile(r"::(?=[A-Za-z][A-Za-z0-9+.-]*(?:://|::|$))")
"""Between the addresses of a chain, such as zip://a.csv::https://host/a.zip; the :: of IPv6 is none."""
SENTENCE_END = ".,;:!?)]}"
ANY_QUERY = ("http", "ftp", "ws")
"""Where a ? always begins a query; elsewhere it may be a wildcard, and a query has a = in it."""
CREDENTIALS = re.compile(
    r"x-(amz|goog|oss|cos)-.*|awsaccesskeyid|googleaccessid|key-pair-id|policy|signature|sig|expires|se|sp|sr|spr|st|sv"
    r"|sk[a-z]+|(.*[-_])?(token|jwt|secret|password|passwd|pwd)|api[-_]?key|access[-_]?key|auth|authorization",
    re.IGNORECASE,
)
"""Parameters that open a file without saying which: a presigned address has new ones each time."""
TOKEN_LENGTH = 20
"""Characters of a web address's fragment that may be a token; what names a part of a page is mostly shorter."""
SECRET_KEYS = ("hub_token", "token", "password", "api_key")
"""Keys of a record whose text is a secret, whatever it looks like."""


def redact(text: str) -> str:
    """``text`` with every address in it as `redact_address` gives it."""
    if ":/" not in text:
        return text
    return IN_TEXT.sub(lambda found: _in_a_sentence(found[0]), text)


def redact_address(address: str) -> str:
    """An address without user, password and query; what isn't an address stays as it is.

    Two addresses that name different files by their queries stay different: the hash of the rest of the query is shown.
    """
    return "::".join(map(_redact_one, CHAIN.split(address))) if ":/" in address else address


def redact_all(value: Any) -> Any:
    """A JSON value with every text in it redacted, keys included."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {
            redact(key) if isinstance(key, str) else key: REDACTED
            if key in SECRET_KEYS and isinstance(item, str) and item
            else redact_all(item)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return type(value)(map(redact_all, value)) if type(value) in (list, tuple) else [*map(redact_all, value)]
    return value


def identity(address: str) -> str:
    """What of an address says which file it is: all but the user part and the parameters that only open it.

    The same file under a new signature is the same input; and a hash of this can't be used to guess a password.
    """
    return "::".join(map(_identify_one, CHAIN.split(address))) if ":/" in address else address


def is_redacted(address: str) -> bool:
    """Whether `redact_address` has taken something out of the address: it opens nothing anymore."""
    return re.search(rf"{SCHEME}{REDACTED}@|\?{REDACTED}(-[0-9a-f]{{8}})?$", address) is not None


def _in_a_sentence(address: str) -> str:
    bare = address.rstrip(SENTENCE_END)
    return redact_address(bare) + address[len(bare) :]


def _redact_one(address: str) -> str:
    parts = PARTS.fullmatch(address)
    if parts is None:
        return address
    path, query = _split(parts["scheme"], parts["rest"])
    user = f"{REDACTED}@" if parts["user"] else ""
    if not query or query.startswith(REDACTED):  # redacting twice changes nothing
        return f"{parts['scheme']}{user}{path}{f'?{query}' if query else ''}"
    named = _naming(query)
    return f"{parts['scheme']}{user}{path}?{REDACTED}{f'-{_digest(named)}' if named else ''}"


def _identify_one(address: str) -> str:
    parts = PARTS.fullmatch(address)
    if parts is None:
        return address
    path, query = _split(parts["scheme"], parts["rest"])
    named = _naming(query)
    return f"{parts['scheme']}{path}{f'?{named}' if named else ''}"


def _split(scheme: str, rest: str) -> tuple[str, str]:
    """(path, query with fragment) of what follows the host's user part."""
    path, mark, query = rest.partition("?")
    if mark and (scheme.lower().startswith(ANY_QUERY) or "=" in query):
        return path, query
    path, mark, fragment = rest.partition("#")
    if "=" in fragment:
        return path, fragment
    secret = len(fragment) >= TOKEN_LENGTH and scheme.lower().startswith(ANY_QUERY)
    return (path, f"token={fragment}") if secret else (rest, "")


def _naming(query: str) -> str:
    """The parameters of a query that may say which file is meant."""
    kept = [
        f"{name}={value}" for name, value in parse_qsl(query, keep_blank_values=True) if not CREDENTIALS.fullmatch(name)
    ]
    return "&".join(kept)


def _digest(text: str) -> str:
    import xxhash

    return str(xxhash.xxh3_64_hexdigest(text.encode("utf-8", "surrogatepass")))[:8]
