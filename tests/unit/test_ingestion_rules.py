"""What may come in, and what of it may go on."""

from __future__ import annotations

import pytest

from kit.rules import scrubbed
from services.ingestion.rules import network


@pytest.mark.parametrize(
    ("address", "kept"),
    [
        ("203.0.113.77", "203.0.113.0"),
        ("2001:db8:85a3:8d3:1319:8a2e:370:7348", "2001:db8:85a3::"),
        ("fe80::1%eth0", "fe80::"),
        ("::ffff:203.0.113.77", "203.0.113.0"),
        ("", ""),
    ],
)
def test_an_address_becomes_its_network(address: str, kept: str) -> None:
    assert network(address) == kept


@pytest.mark.parametrize(
    "url",
    [
        "https://shop.example/",
        "https://shop.example/courses/pmp?utm_source=news&utm_medium=email&x=1#top",
        "https://shop.example/?s=a+b&empty=&order=17",
        "/relative?page=2",
        "not a url at all",
        "",
    ],
)
def test_a_url_that_names_nobody_stays_as_it_is(url: str) -> None:
    assert scrubbed(url) == url


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://s.example/?email=ada@example.org", "https://s.example/?email=redacted"),
        ("https://s.example/?email=ada%40example.org&a=1", "https://s.example/?email=redacted&a=1"),
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
    ],
)
def test_what_names_a_person_is_gone_from_a_url(url: str, kept: str) -> None:
    assert scrubbed(url) == kept
