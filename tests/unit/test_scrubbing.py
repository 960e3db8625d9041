"""Personal data is removed from the texts of a request, however it is encoded; the rest stays as it was written."""

from __future__ import annotations

from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Iterable
from html import escape
from typing import Any
from urllib.parse import quote

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor, ServiceDescriptor
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.struct_pb2 import Struct
from hypothesis import given
from hypothesis import strategies as st
from pmp.gdpr.v1 import gdpr_pb2
from pmp.identity.v1 import identity_pb2
from pmp.ingestion.v1 import ingestion_pb2
from pmp.ingestion.v1.event_pb2 import Event
from pmp.journeys.v1 import journeys_pb2
from pmp.options.v1 import options_pb2
from pmp.purchases.v1 import purchases_pb2

from kit.boundary.validation import validate
from kit.scrubbing.addresses import has_address
from kit.scrubbing.fields import text_of
from kit.scrubbing.scrubber import Scrubber
from kit.scrubbing.texts import REDACTED, TextScrubber

EMAIL = "ada.lovelace@example.org"
SCRUBBER = Scrubber()
TEXTS = TextScrubber()


def twice(text: str) -> str:
    return quote(quote(text, safe=""), safe="")


ENCODINGS: dict[str, Callable[[str], str]] = {
    "clear": str,
    "percent": lambda text: quote(text, safe=""),
    "percent twice": twice,
    "percent four times": lambda text: twice(twice(text)),
    "the at sign alone": lambda text: text.replace("@", "%40"),
    "an entity": lambda text: text.replace("@", "&#64;"),
    "a hexadecimal entity": lambda text: text.replace("@", "&#x40;"),
    "a named entity": lambda text: text.replace("@", "&commat;"),
    "an entity of an entity": lambda text: escape(text.replace("@", "&#64;")),
    "percent and entity": lambda text: quote(text.replace("@", "&#64;"), safe=""),
    "full width": lambda text: text.replace("@", "\uff20"),
}
HIDDEN: dict[str, Callable[[str], str]] = {
    "base64": lambda text: b64encode(text.encode()).decode(),
    "base64 of URLs": lambda text: urlsafe_b64encode(text.encode()).decode().rstrip("="),
    "base64 in percents": lambda text: quote(b64encode(text.encode()).decode(), safe=""),
    "base64 of JSON": lambda text: b64encode(f'{{"email": "{text}"}}'.encode()).decode(),
    "hexadecimal digits": lambda text: text.encode().hex(),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("email", [EMAIL, "ada+course@example.org", "a@m\u00fcnchen.example", "o'brien@example.org"])
def test_an_address_is_gone_from_a_text_however_it_is_encoded(encoding: str, email: str) -> None:
    written = ENCODINGS[encoding](email)
    for text in (written, f"Welcome back, {written}!", f"a <{written}> b", f"x={written}", f"ada,{written},1"):
        kept = TEXTS.text(text)
        assert REDACTED in kept
        assert not has_address(kept)
        assert written not in kept


@pytest.mark.parametrize("encoding", [*ENCODINGS, *HIDDEN])
def test_an_address_is_gone_from_every_part_of_a_url_and_from_the_campaign(encoding: str) -> None:
    written = (ENCODINGS | HIDDEN)[encoding](EMAIL)
    for url in (
        f"https://s.example/?utm_source={written}",
        f"https://s.example/a/{written}/b?p=1",
        f"https://s.example/#p={written}",
        f"https://s.example/#/a/{written}?lang={written}",
        f"/relative/{written}",
    ):
        kept = TEXTS.url(url)
        assert written not in kept
        assert not has_address(kept)
    assert TEXTS.parameter(written) == REDACTED


@pytest.mark.parametrize(
    "url",
    [
        "https://shop.example/",
        "https://shop.example/courses/pmp?utm_source=newsletter&utm_medium=email&page=1#top",
        "https://shop.example/?lang=a+b&sort=&order=17",
        "https://shop.example/?UTM_Source=LinkedIn&gclid=EAIaIQobChMI8-_x&product_id[]=7&ScCid=x",
        "https://shop.example/?utm_source=a&amp;utm_medium=b;p=3",
        "/relative?page=2",
        "not a url at all",
        "android-app://com.google.android.gm/",
        "https://m\u00fcnchen.example/kurse/m%C3%BCnchen%20s%C3%BCd/",
        "",
    ],
)
def test_a_url_that_names_nobody_stays_as_it_is(url: str) -> None:
    assert TEXTS.url(url) == url


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://s.example/?email=ada@example.org", "https://s.example/?email=redacted"),
        ("https://s.example/?email=ada%40example.org&p=1", "https://s.example/?email=redacted&p=1"),
        (
            "https://s.example/?user_email=x&phone=1&billing_first_name=Ada",
            "https://s.example/?user_email=redacted&phone=redacted&billing_first_name=redacted",
        ),
        ("https://s.example/?q=write+ada@example.org", "https://s.example/?q=redacted"),
        ("https://s.example/reset?token=abc&password=x", "https://s.example/reset?token=redacted&password=redacted"),
        ("https://ada:pw@s.example/x", "https://s.example/x"),
        ("https://s.example/ada@example.org/x", "https://s.example/redacted/x"),
        ("https://s.example/#email=ada@example.org", "https://s.example/#email=redacted"),
        ("https://s.example/#/ada@example.org", "https://s.example/#/redacted"),
        ("https://[bad?email=ada@example.org", "https://[bad"),
        ("https://s.example/?ada%40example.org&lang=%20b+c", "https://s.example/?redacted&lang=%20b+c"),
        ("https://s.example/?email=x&lang=\u20ac&page=%E2%82%AC", "https://s.example/?email=redacted&lang=\u20ac&page=%E2%82%AC"),
        (
            "https://s.example/?name=Ada&vorname=Ada&tel=5551234&login=ada&user=ada&s=Ada",
            "https://s.example/?name=redacted&vorname=redacted&tel=redacted&login=redacted&user=redacted&s=redacted",
        ),
        (
            "https://s.example/checkout/order-received/17/?key=wc_order_aB3dE5",
            "https://s.example/checkout/order-received/17/?key=redacted",
        ),
        ("https://s.example/author/ada-lovelace/page/2/", "https://s.example/author/redacted/page/2/"),
        ("https://s.example/Members/ada-lovelace", "https://s.example/Members/redacted"),
        ("https://s.example/%61uthor/ada-lovelace/", "https://s.example/%61uthor/redacted/"),
        ("https://s.example/@ada", "https://s.example/redacted"),
        ("https://s.example/?Ada Lovelace", "https://s.example/?redacted"),
        ("https://s.example/?p=1;name=Ada", "https://s.example/?p=1;name=redacted"),
        ("https://s.example/#:~:text=Ada", "https://s.example/#:~:text=redacted"),
        ("mailto:ada@example.org", "mailto:redacted"),
        ("tel:+4955512345", "tel:redacted"),
    ],
)
def test_what_names_a_person_is_gone_from_a_url(url: str, kept: str) -> None:
    assert TEXTS.url(url) == kept


@pytest.mark.parametrize(
    "text", ["50% off & more", "100%25 fine", "@ada and #pmp", "a @ b", "R&D; Q&A", "see https://s.example/?p=3", "1.5@2"]
)
def test_a_text_that_names_nobody_stays_as_it_is(text: str) -> None:
    assert TEXTS.text(text) == text


def test_urls_in_a_text_carry_no_more_than_others() -> None:
    assert TEXTS.text("from https://s.example/?name=Ada&p=3 to x") == "from https://s.example/?name=redacted&p=3 to x"


def test_a_shop_names_parameters_of_its_own() -> None:
    assert TextScrubber({"s", "Voucher"}).url("/?s=exam&voucher=a&name=Ada") == "/?s=exam&voucher=a&name=redacted"


def test_free_form_data_is_scrubbed_in_names_and_values_however_deep() -> None:
    metadata: dict[str, Any] = {
        EMAIL: 1,
        "number": 2.5,
        "list": [{"deep": [EMAIL, "x"]}],
        quote(EMAIL): 2,
        "href": "https://s.example/?name=Ada",
    }
    event = ParseDict({"metadata": metadata}, Event())
    SCRUBBER.scrub(event)
    expected = {"redacted": 2.0, "number": 2.5, "list": [{"deep": ["redacted", "x"]}], "href": "https://s.example/?name=redacted"}
    found = MessageToDict(event)["metadata"]
    assert found.pop("redacted") in (1.0, 2.0)
    expected.pop("redacted")
    assert found == expected


def test_a_text_stays_as_short_as_its_column() -> None:
    event = Event(source=" ".join(["a@b.co"] * 14), page_url="/?" + "&".join(["a=b"] * 1000))
    SCRUBBER.scrub(event)
    assert (len(event.source), len(event.page_url)) == (100, 4096)
    assert not has_address(event.source)


@given(st.text(alphabet="aZ09@%&#;:/?=.+ -_x4C\uff20", max_size=60))
def test_what_was_scrubbed_stays_as_it_is(text: str) -> None:
    for clean in (TEXTS.text, TEXTS.url, TEXTS.parameter):
        kept = clean(text)
        assert clean(kept) == kept
    assert not has_address(TEXTS.text(text))


def _requests() -> Iterable[Descriptor]:
    """What callers send through the gateway."""
    for module in (gdpr_pb2, identity_pb2, ingestion_pb2, journeys_pb2, purchases_pb2):
        services: Iterable[ServiceDescriptor] = module.DESCRIPTOR.services_by_name.values()
        for service in services:
            for method in service.methods:
                if method.GetOptions().Extensions[options_pb2.access] != options_pb2.ACCESS_INTERNAL:
                    yield method.input_type


def _fill(message: Any, text: str) -> None:
    """Writes a text into every text of a message that its proto does not call personal."""
    fields: Iterable[FieldDescriptor] = message.DESCRIPTOR.fields
    for field in fields:
        if text_of(field) == options_pb2.TEXT_PERSONAL:
            continue
        if field.type == FieldDescriptor.TYPE_STRING:
            if field.is_repeated:
                getattr(message, field.name).append(text)
            else:
                setattr(message, field.name, text)
        elif field.message_type is Struct.DESCRIPTOR:
            getattr(message, field.name).update({text: [text, {"a": text}]})
        elif field.message_type is not None and field.message_type.file.package.startswith("pmp."):
            _fill(getattr(message, field.name).add() if field.is_repeated else getattr(message, field.name), text)


@pytest.mark.parametrize("request_type", [pytest.param(each, id=each.name) for each in _requests()])
@pytest.mark.parametrize("encoding", ["clear", "percent twice"])
def test_no_text_of_any_request_has_address(request_type: Descriptor, encoding: str) -> None:
    message: Message = GetMessageClass(request_type)()
    _fill(message, ENCODINGS[encoding](EMAIL))
    SCRUBBER.scrub(message)
    # What a rule of its own binds to words without such marks is refused, and never scrubbed.
    refused = {violation.field for violation in validate(message)}
    assert [path for path, text in _texts(message) if has_address(text) and path not in refused] == []


def _texts(message: Any, path: str = "") -> Iterable[tuple[str, str]]:
    """All texts of a message that its proto does not call personal, each with its path."""
    fields: Iterable[tuple[FieldDescriptor, Any]] = message.ListFields()
    for field, value in fields:
        own = f"{path}.{field.name}" if path else field.name
        if text_of(field) == options_pb2.TEXT_PERSONAL:
            continue
        for index, each in enumerate(value if field.is_repeated else [value]):
            where = f"{own}[{index}]" if field.is_repeated else own
            if isinstance(each, str):
                yield where, each
            elif isinstance(each, Struct):
                yield where, str(MessageToDict(each))
            elif isinstance(each, Message):
                yield from _texts(each, where)
