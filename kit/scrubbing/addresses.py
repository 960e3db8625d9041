"""Finds e-mail addresses in texts, in clear or encoded."""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode
from html import unescape
from typing import Final
from urllib.parse import unquote_plus

_ADDRESS: Final = re.compile(r"[^\s@/][@\uff20][^\s@/]+[.\u3002\uff0e\uff61][^\s@/]")
_HIDDEN_ADDRESS: Final = re.compile(rb"[\w.!#$%&'*+/=?^`{|}~-]@[A-Za-z0-9.-]+\.[A-Za-z]{2}")
_SHORTEST: Final = 12
_ENCODED: Final = re.compile(rf"[A-Za-z0-9+/_-]{{{_SHORTEST},}}")
_HEX: Final = re.compile(r"(?:[0-9A-Fa-f]{2})+")
_PERCENT: Final = re.compile(r"%(?:25)+")
_ROUNDS: Final = 4


def decoded(text: str) -> str:
    """Decodes percent-encoding and HTML entities, up to four times over."""
    for _ in range(_ROUNDS):
        plain = text
        if "%" in plain or "+" in plain:
            plain = unquote_plus(_PERCENT.sub("%", plain))
        if "&" in plain:
            plain = unescape(plain)
        if plain == text:
            break
        text = plain
    return text


def has_address(text: str) -> bool:
    """True for a text with an e-mail address in it, in clear or encoded as in URLs and HTML."""
    if "%" in text or "&" in text:
        text = decoded(text)
    return ("@" in text or "\uff20" in text) and _ADDRESS.search(text) is not None


def hides_address(text: str) -> bool:
    """True for a text with an e-mail address in it, also in base64 or hexadecimal digits."""
    plain = decoded(text)
    return has_address(plain) or (
        len(plain) >= _SHORTEST and any(_HIDDEN_ADDRESS.search(_bytes(word)) for word in _ENCODED.findall(plain.replace(" ", "+")))
    )


def _bytes(word: str) -> bytes:
    """Decodes a word of hexadecimal digits or base64."""
    if _HEX.fullmatch(word):
        return bytes.fromhex(word)
    word = word.replace("+", "-").replace("/", "_")
    # A single character beyond whole bytes is ignored.
    return urlsafe_b64decode(word[: len(word) - (len(word) % 4 == 1)] + "=" * (-len(word) % 4))
