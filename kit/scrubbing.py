"""Takes what names a person out of the texts of a request: addresses wherever they stand, and what URLs carry of their visitor.

A text is free unless its proto says otherwise: an e-mail address in it, however it is encoded, becomes `redacted`. Of a
URL's parameters those keep their values that are known to name nobody; what a list does not know loses its value, not its name.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import unescape
from typing import Any, Final
from urllib.parse import unquote, unquote_plus, urlsplit, urlunsplit

from buf.validate import validate_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value
from pmp.options.v1 import options_pb2

REDACTED: Final = "redacted"

# fmt: off
CAMPAIGN_PARAMETERS: Final = frozenset({
    "utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content", "utm_id", "utm_source_platform", "utm_creative_format",
    "utm_marketing_tactic", "mtm_source", "mtm_medium", "mtm_campaign", "mtm_keyword", "mtm_content", "mtm_cid", "mtm_group",
    "mtm_placement", "pk_source", "pk_medium", "pk_campaign", "pk_keyword", "pk_content", "pk_cid", "matchtype", "network", "device",
    "campaignid", "adgroupid", "adid", "creative", "placement", "gad_campaignid",
})
"""Parameters that say which advertisement led to a visit."""

CLICK_PARAMETERS: Final = frozenset({
    "gclid", "gclsrc", "gbraid", "wbraid", "gad_source", "dclid", "srsltid", "fbclid", "msclkid", "ttclid", "li_fat_id", "twclid", "yclid",
    "ymclid", "ysclid", "epik", "rdt_cid", "sccid", "irclickid", "awc", "cjevent", "obclid", "tblci", "qclid", "vmcid",
})
"""Parameters by which advertising networks number their clicks."""

_PAGE_PARAMETERS: Final = frozenset({
    # WordPress
    "p", "page", "paged", "page_id", "post", "post_id", "post_type", "cat", "category", "category_name", "tag", "tag_id", "m", "year",
    "monthnum", "day", "w", "order", "orderby", "taxonomy", "term", "attachment_id", "preview", "ver", "v", "lang", "locale", "language",
    # WooCommerce
    "add-to-cart", "remove_item", "undo_item", "quantity", "variation_id", "product_id", "product", "product_cat", "product_tag",
    "products", "order_id", "currency", "country", "min_price", "max_price", "rating_filter", "stock_status", "pay_for_order", "wc-ajax",
    # courses
    "course", "course_id", "lesson", "lesson_id", "topic_id", "quiz", "quiz_id", "unit", "section", "module", "chapter",
    # how a page is shown
    "id", "sort", "sort_by", "dir", "filter", "view", "tab", "step", "limit", "offset", "per_page", "size", "color", "variant", "theme",
    "amp", "format", "type", "status", "source", "medium", "campaign",
})
"""Parameters of pages, products and courses, by number or by name."""

_WHOSE: Final = frozenset({
    "author", "authors", "profile", "profiles", "member", "members", "u", "user", "users", "people", "person", "customer", "customers",
    "student", "students", "autor", "mitglied", "mitglieder", "benutzer", "profil",
})
"""Words of a path behind which somebody is named."""
# fmt: on
_PARAMETERS: Final = CAMPAIGN_PARAMETERS | CLICK_PARAMETERS | _PAGE_PARAMETERS
_OPAQUE: Final = frozenset({"mailto", "tel", "sms", "data", "javascript", "callto", "whatsapp", "skype", "facetime"})
"""Schemes whose addresses are no places."""

_ADDRESS: Final = re.compile(r"[^\s@/][@\uff20][^\s@/]+[.\u3002\uff0e\uff61][^\s@/]")
_HIDDEN_ADDRESS: Final = re.compile(rb"[\w.!#$%&'*+/=?^`{|}~-]@[A-Za-z0-9.-]+\.[A-Za-z]{2}")
_SHORTEST: Final = 12
_ENCODED: Final = re.compile(rf"[A-Za-z0-9+/_-]{{{_SHORTEST},}}")
_HEX: Final = re.compile(r"(?:[0-9A-Fa-f]{2})+")
_PERCENT: Final = re.compile(r"%(?:25)+")
_TOKEN: Final = re.compile(r"[^\s,<>\"()]+")
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s<>\"]+")
_NAME: Final = re.compile(r"\S{1,64}")
_INDEX: Final = re.compile(r"\[\w*\]$", re.ASCII)
_BETWEEN: Final = re.compile(r"([&;])")
# Numbers have this byte as well, behind which the next field begins.
_AT: Final = re.compile(rb"@\S")
_WIDE_AT: Final = "\uff20".encode()
_ROUNDS: Final = 4
_CACHED: Final = 8192
# Would a field's own rule let an address through?
_PROBES: Final = ("a@b.example", "a%40b.example", "https://a.example/?b=c")

_Clean = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class _Plan:
    """What of a message has texts to look at."""

    texts: Sequence[tuple[str, _Clean, int | None]]
    """Fields with what cleans them, and how long they may be."""
    lists: Sequence[tuple[str, _Clean]]
    structs: Sequence[str]
    messages: Sequence[str]
    several: Sequence[str]


class Scrubber:
    """Scrubs messages by their protos. A message that was scrubbed is left as it is when it comes again.

    Args:
        parameters: further parameters of URLs that keep their values.
    """

    def __init__(self, parameters: Collection[str] = ()) -> None:
        self._parameters = _PARAMETERS | {parameter.casefold() for parameter in parameters}
        self._plans: dict[type[Message], _Plan] = {}
        # Pages, titles and campaigns are few, and come again and again.
        self.url: _Clean = lru_cache(_CACHED)(self._url)
        """A URL without credentials, and without values that name somebody or may do so."""
        self.parameter: _Clean = lru_cache(_CACHED)(self._parameter)
        """The value of a URL's parameter."""
        self.text: _Clean = lru_cache(_CACHED)(self._text)
        """A free text: of URLs in it as little is left as of others, and of e-mail addresses nothing."""

    def scrub(self, message: Message) -> None:
        """Takes what names a person out of a message's texts; changes it in place."""
        plan = self._plans.get(type(message)) or self._planned(message)
        for name, clean, longest in plan.texts:
            value = getattr(message, name)
            if value and (kept := clean(value)) != value:
                setattr(message, name, kept[:longest])
        for name in plan.structs:
            if message.HasField(name):
                self.struct(getattr(message, name))
        for name in plan.messages:
            if message.HasField(name):
                self.scrub(getattr(message, name))
        for name in plan.several:
            for each in getattr(message, name):
                self.scrub(each)
        for name, clean in plan.lists:
            values = getattr(message, name)
            values[:] = [clean(value) for value in values]

    def struct(self, struct: Struct) -> None:
        """Scrubs the names and texts of free-form data, however deep; changes it in place."""
        serialised = struct.SerializeToString()
        # Most have nothing to look at, which is cheaper to see than each of their texts.
        if (
            b"%" in serialised
            or b"&" in serialised
            or b"://" in serialised
            or _WIDE_AT in serialised
            or (b"@" in serialised and _AT.search(serialised))
        ):
            self._struct(struct)

    def _struct(self, struct: Struct) -> None:
        names = {name: self.text(name) for name in struct.fields}
        # In their order: of several that lose their names, the same one stays in every process.
        for name in sorted(name for name, kept in names.items() if kept != name):
            if names[name] not in struct.fields:
                struct.fields[names[name]].CopyFrom(struct.fields[name])
            del struct.fields[name]
        for value in struct.fields.values():
            self._value(value)

    def _value(self, value: Value) -> None:
        kind = value.WhichOneof("kind")
        if kind == "string_value":
            if (kept := self.text(value.string_value)) != value.string_value:
                value.string_value = kept
        elif kind == "struct_value":
            self._struct(value.struct_value)
        elif kind == "list_value":
            for item in value.list_value.values:
                self._value(item)

    def _text(self, text: str) -> str:
        kept = _URL.sub(lambda found: self._url(found[0]), text) if "://" in text else text
        if not names_somebody(kept):
            return kept
        kept = _TOKEN.sub(lambda found: REDACTED if names_somebody(found[0]) else found[0], kept)
        return REDACTED if names_somebody(kept) else kept

    def _parameter(self, value: str) -> str:
        kept = self.text(value)
        return REDACTED if _leads_to_somebody(kept) else kept

    def _url(self, url: str) -> str:
        try:
            parts = urlsplit(url)
        except ValueError:
            return self._path(url.partition("?")[0])
        if parts.scheme in _OPAQUE:
            return f"{parts.scheme}:{REDACTED}"
        kept = (self._host(parts.netloc), self._path(parts.path), self._query(parts.query), self._fragment(parts.fragment))
        # As it was written, if it names nobody.
        whole = url if kept == tuple(parts[1:]) else urlunsplit((parts.scheme, *kept))
        # What has the mark of a part within itself, as HTML's entities do, is seen in the whole alone.
        return urlunsplit((parts.scheme, *kept[:2], "", "")) if names_somebody(whole) else whole

    @staticmethod
    def _host(host: str) -> str:
        own = host.rpartition("@")[2]
        return REDACTED if "@" in decoded(own) else own

    @staticmethod
    def _path(path: str) -> str:
        segments = path.split("/")
        words = [""] + [unquote(segment).casefold() for segment in segments[:-1]]
        return "/".join(
            REDACTED if segment and (word in _WHOSE or segment.startswith("@") or _leads_to_somebody(segment)) else segment
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
        return "".join(part if part in ("&", ";") else self._pair(part) for part in _BETWEEN.split(query))

    def _pair(self, pair: str) -> str:
        written, mark, value = pair.partition("=")
        name = decoded(written)
        if names_somebody(name) or (written and not _NAME.fullmatch(name)):
            written, name = REDACTED, ""
        if value and (_INDEX.sub("", name).casefold() not in self._parameters or _leads_to_somebody(value)):
            value = REDACTED
        return written + mark + value

    def _planned(self, message: Message) -> _Plan:
        texts: list[tuple[str, _Clean, int | None]] = []
        lists: list[tuple[str, _Clean]] = []
        structs: list[str] = []
        messages: list[str] = []
        several: list[str] = []
        for field in _fields(message):
            if field.type == FieldDescriptor.TYPE_STRING and (clean := self._clean(field)):
                if field.is_repeated:
                    lists.append((field.name, clean))
                else:
                    texts.append((field.name, clean, _rules(field).max_len or None))
            elif field.message_type is not None and holds_text(field):
                of = messages if field.message_type is not Struct.DESCRIPTOR else structs
                (several if field.is_repeated else of).append(field.name)
        return self._plans.setdefault(type(message), _Plan(texts, lists, structs, messages, several))

    def _clean(self, field: FieldDescriptor) -> _Clean | None:
        kinds: dict[int, _Clean] = {options_pb2.TEXT_URL: self.url, options_pb2.TEXT_PARAMETER: self.parameter}
        return kinds.get(text_of(field), self.text) if is_free(field) else None


def _fields(message: Any) -> Iterable[FieldDescriptor]:
    return message.DESCRIPTOR.fields


def text_of(field: FieldDescriptor) -> int:
    """What its proto says that a text is."""
    return field.GetOptions().Extensions[options_pb2.text]


def is_free(field: FieldDescriptor) -> bool:
    """True for a text that may hold anything, so that it is scrubbed: neither personal by nature, nor bound by a rule of its own."""
    if text_of(field) == options_pb2.TEXT_PERSONAL:
        return False
    rules = _rules(field)
    if getattr(rules, "in") or rules.WhichOneof("well_known"):
        return False
    return not rules.pattern or any(re.search(rules.pattern, probe) for probe in _PROBES)


def _rules(field: FieldDescriptor) -> validate_pb2.StringRules:
    options: Any = field.GetOptions()
    return options.Extensions[validate_pb2.field].string


def holds_text(field: FieldDescriptor) -> bool:
    """True when what a field holds has texts that are scrubbed."""
    message: Descriptor | None = field.message_type
    if message is None:
        return field.type == FieldDescriptor.TYPE_STRING and is_free(field)
    if text_of(field) == options_pb2.TEXT_PERSONAL:
        return False
    fields: Iterable[FieldDescriptor] = message.fields
    return message is Struct.DESCRIPTOR or any(holds_text(each) for each in fields)


def decoded(text: str) -> str:
    """A text as it is meant: percent-encoding and HTML's entities are undone, however often they were done."""
    for _ in range(_ROUNDS):
        meant = text
        if "%" in meant or "+" in meant:
            meant = unquote_plus(_PERCENT.sub("%", meant))
        if "&" in meant:
            meant = unescape(meant)
        if meant == text:
            break
        text = meant
    return text


def names_somebody(text: str) -> bool:
    """True for a text that has an e-mail address in it, in clear or encoded as URLs and HTML are."""
    if "%" in text or "&" in text:
        text = decoded(text)
    return ("@" in text or "\uff20" in text) and _ADDRESS.search(text) is not None


def _leads_to_somebody(text: str) -> bool:
    """True for a text that names somebody, or has an e-mail address in it as base64 or hexadecimal digits."""
    meant = decoded(text)
    return names_somebody(meant) or (
        len(meant) >= _SHORTEST and any(_HIDDEN_ADDRESS.search(_bytes(word)) for word in _ENCODED.findall(meant.replace(" ", "+")))
    )


def _bytes(word: str) -> bytes:
    """What a word stands for, if it is written in hexadecimal digits or base64."""
    if _HEX.fullmatch(word):
        return bytes.fromhex(word)
    word = word.replace("+", "-").replace("/", "_")
    # One character more than whole bytes have is not of them.
    return urlsafe_b64decode(word[: len(word) - (len(word) % 4 == 1)] + "=" * (-len(word) % 4))
