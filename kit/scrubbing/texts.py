"""Scrubs texts, URLs and their parameters."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from functools import lru_cache
from typing import Final, TypeAlias
from urllib.parse import unquote, urlsplit, urlunsplit

from kit.scrubbing.addresses import decoded, has_address, hides_address
from kit.scrubbing.parameters import KNOWN_PARAMETERS

REDACTED: Final = "redacted"

Clean: TypeAlias = Callable[[str], str]
"""Returns a text without personal data."""

# fmt: off
_OWNERS: Final = frozenset({
    "author", "authors", "profile", "profiles", "member", "members", "u", "user", "users", "people", "person", "customer", "customers",
    "student", "students", "autor", "mitglied", "mitglieder", "benutzer", "profil",
})
"""Segments of a path after which a person is named."""
# fmt: on
_OPAQUE: Final = frozenset({"mailto", "tel", "sms", "data", "javascript", "callto", "whatsapp", "skype", "facetime"})
"""Schemes whose URLs have no hierarchy."""
_TOKEN: Final = re.compile(r"[^\s,<>\"()]+")
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s<>\"]+")
_NAME: Final = re.compile(r"\S{1,64}")
_INDEX: Final = re.compile(r"\[\w*\]$", re.ASCII)
_SEPARATOR: Final = re.compile(r"([&;])")
_CACHED: Final = 8192


class TextScrubber:
    """Scrubs texts. Results are cached, since pages, titles and campaigns are few and recur.

    Args:
        parameters: further parameters of URLs that keep their values.
    """

    def __init__(self, parameters: Collection[str] = ()) -> None:
        self._parameters = KNOWN_PARAMETERS | {parameter.casefold() for parameter in parameters}
        self.url: Clean = lru_cache(_CACHED)(self._url)
        """Scrubs a URL: removes credentials, and values that identify a person or may do so."""
        self.parameter: Clean = lru_cache(_CACHED)(self._parameter)
        """Scrubs the value of a URL's parameter."""
        self.text: Clean = lru_cache(_CACHED)(self._text)
        """Scrubs a free text: URLs in it as other URLs, and e-mail addresses entirely."""

    def _text(self, text: str) -> str:
        kept = _URL.sub(lambda found: self._url(found[0]), text) if "://" in text else text
        if not has_address(kept):
            return kept
        kept = _TOKEN.sub(lambda found: REDACTED if has_address(found[0]) else found[0], kept)
        return REDACTED if has_address(kept) else kept

    def _parameter(self, value: str) -> str:
        kept = self.text(value)
        return REDACTED if hides_address(kept) else kept

    def _url(self, url: str) -> str:
        try:
            parts = urlsplit(url)
        except ValueError:
            return self._path(url.partition("?")[0])
        if parts.scheme in _OPAQUE:
            return f"{parts.scheme}:{REDACTED}"
        kept = (self._host(parts.netloc), self._path(parts.path), self._query(parts.query), self._fragment(parts.fragment))
        # Unchanged if nothing was removed: urlunsplit may write it differently.
        whole = url if kept == tuple(parts[1:]) else urlunsplit((parts.scheme, *kept))
        # An encoding with a delimiter of URLs in it, such as HTML's `&#64;`, only shows in the whole.
        return urlunsplit((parts.scheme, *kept[:2], "", "")) if has_address(whole) else whole

    @staticmethod
    def _host(host: str) -> str:
        own = host.rpartition("@")[2]
        return REDACTED if "@" in decoded(own) else own

    @staticmethod
    def _path(path: str) -> str:
        segments = path.split("/")
        words = [""] + [unquote(segment).casefold() for segment in segments[:-1]]
        return "/".join(
            REDACTED if segment and (word in _OWNERS or segment.startswith("@") or hides_address(segment)) else segment
            for word, segment in zip(words, segments, strict=True)
        )

    def _fragment(self, fragment: str) -> str:
        route, mark, query = fragment.partition("?")
        if not mark and "=" in fragment:
            return self._query(fragment)
        return self._path(route) + mark + self._query(query)

    def _query(self, query: str) -> str:
        if not query:
            return query
        return "".join(part if part in ("&", ";") else self._pair(part) for part in _SEPARATOR.split(query))

    def _pair(self, pair: str) -> str:
        written, mark, value = pair.partition("=")
        name = decoded(written)
        if has_address(name) or (written and not _NAME.fullmatch(name)):
            written, name = REDACTED, ""
        if value and (_INDEX.sub("", name).casefold() not in self._parameters or hides_address(value)):
            value = REDACTED
        return written + mark + value
