"""Signatures of webhooks, against the senders' own libraries and against OpenSSL's."""

from __future__ import annotations

import asyncio
import hmac
import subprocess
import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
import stripe
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from kit.errors import Unauthenticated, Unavailable
from services.destinations.received.certificates import Certificates
from services.destinations.received.sender import Sender, webhook_senders
from services.destinations.received.senders.brevo import Brevo
from services.destinations.received.senders.klaviyo import Klaviyo
from services.destinations.received.senders.paypal import PayPal
from services.destinations.received.settings import WebhookSettings
from services.destinations.received.signatures import check_appended, check_base64, check_timestamped
from services.destinations.received.statement import Statement
from tests.paypal import PayPalDouble, running_paypal
from tests.received_webhooks import brevo, klaviyo, klaviyo_event

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
OLD, NEW = SecretStr("whsec_old_secret_of_the_tests"), SecretStr("whsec_new_secret_of_the_tests")
BODY = b'{"id": "evt_1", "name": "J\xc3\xb6rg"}'
HEADER = "stripe-signature"
OWN = "secret"


def settings_with(**fields: object) -> WebhookSettings:
    required = {
        "mesh_token": "token",
        "vault_key": "key",
        "key_encryption_keys": "key",
        "redis_url": "",
        "database_url": "sqlite:///{service}",
    }
    return WebhookSettings.model_validate({**required, **fields})


def signed(body: bytes = BODY, secret: SecretStr = OLD, at: datetime = NOW) -> str:
    """As Stripe's library signs a webhook for tests."""
    stamp = int(at.timestamp())
    return stripe.WebhookSignature.generate_signature_header(body.decode(), secret.get_secret_value(), stamp)


def is_taken(body: bytes, header: str | None, now: datetime = NOW) -> bool:
    try:
        check_timestamped([OLD, NEW], body, {} if header is None else {HEADER: header}, HEADER, now)
    except Unauthenticated:
        return False
    return True


def is_taken_by_stripe(body: bytes, header: str) -> bool:
    for secret in (OLD, NEW):
        with suppress(stripe.SignatureVerificationError):
            return stripe.WebhookSignature.verify_header(body.decode(), header, secret.get_secret_value(), tolerance=None)
    return False


def test_a_refusal_names_no_value() -> None:
    with pytest.raises(Unauthenticated, match=r"^stripe-signature does not match the body$"):
        check_timestamped([OLD], b"{}", {HEADER: signed()}, HEADER, NOW)


def test_a_signature_of_either_secret_is_taken() -> None:
    assert is_taken(BODY, signed())
    assert is_taken(BODY, signed(secret=NEW))
    assert is_taken(BODY, f"{signed(secret=SecretStr('another secret'))},v1={signed().partition('v1=')[2]},v0=00")


@pytest.mark.parametrize("seconds", [-301, 301, -86_400, 86_400])
def test_a_recorded_or_predated_webhook_is_refused(seconds: int) -> None:
    assert not is_taken(BODY, signed(at=NOW + timedelta(seconds=seconds)))
    assert is_taken(BODY, signed(at=NOW + timedelta(seconds=299 if seconds > 0 else -299)))


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        " ",
        "t=1",
        "v1=00",
        "t=,v1=00",
        "t=abc,v1=00",
        "t=-1,v1=00",
        f"t={'9' * 5000},v1=00",
        "t=١٢٣,v1=00",
        "garbage",
        ",,,",
        signed().replace("v1=", "v0="),
        signed().replace("t=", "t=1,t="),
        signed(BODY + b" "),
        signed(secret=SecretStr("another secret")),
        "v1=\x00é",
    ],
)
def test_a_header_that_signs_nothing_is_refused(header: str | None) -> None:
    assert not is_taken(BODY, header)


@given(
    header=st.lists(st.sampled_from(["t=1", f"t={int(NOW.timestamp())}", "v1=00", signed().partition(",")[2], "v0=1", "", "x"])),
    body=st.sampled_from([BODY, b"{}"]),
)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_what_is_taken_is_what_stripes_own_library_takes(header: list[str], body: bytes) -> None:
    text = ",".join(header)
    # Of several times their library takes the last one: here they are refused.
    if len([part for part in header if part.startswith("t=")]) < 2:
        assert is_taken(body, text) == is_taken_by_stripe(body, text)


def test_a_base64_signature_is_that_of_the_body() -> None:
    def taken(value: str | None, body: bytes = BODY) -> bool:
        try:
            check_base64([OLD, NEW], body, {} if value is None else {"x-wc-webhook-signature": value}, "x-wc-webhook-signature")
        except Unauthenticated:
            return False
        return True

    def of(secret: SecretStr) -> str:
        return b64encode(hmac.digest(secret.get_secret_value().encode(), BODY, "sha256")).decode()

    assert taken(of(OLD))
    assert taken(of(NEW))
    assert not taken(of(SecretStr("another secret")))
    assert not taken(of(OLD), BODY + b"\n")
    assert not taken(None)
    assert not taken("")
    assert not taken(of(OLD).rstrip("="))


def test_a_signature_with_the_time_after_the_body_is_what_openssl_makes_of_both() -> None:
    stamp = "Fri, 20 Nov 2026 12:00:00 GMT"

    def taken(value: str, body: bytes = BODY, at: str = stamp) -> bool:
        try:
            check_appended([OLD, NEW], body, {"klaviyo-signature": value}, "klaviyo-signature", at)
        except Unauthenticated:
            return False
        return True

    for secret in (OLD, NEW):
        command = ["openssl", "dgst", "-sha256", "-hmac", secret.get_secret_value(), "-r"]
        made = subprocess.run(command, input=BODY + stamp.encode(), capture_output=True, check=True).stdout.split()[0].decode()
        assert [taken(made), taken(made.upper())] == [True, True]
        assert [taken(made, BODY + b" "), taken(made, at=stamp + " "), taken(made[:-1]), taken("")] == [False] * 4


def test_every_sender_refuses_what_has_no_secret_yet() -> None:
    found = webhook_senders(settings_with())
    assert set(found) == {"brevo", "klaviyo", "mailchimp", "paypal", "stripe", "woocommerce"}
    assert not any(sender.is_configured for sender in found.values())


def test_what_klaviyo_states_without_a_time_happened_when_it_was_sent() -> None:
    event = klaviyo_event("unsubscribed_from_email_marketing", "ada@example.org", NOW - timedelta(days=1))
    for missing, at in (("datetime", NOW - timedelta(days=1)), ("timestamp", NOW)):
        del event["payload"]["data"]["attributes"][missing]
        stated = Klaviyo(settings_with()).read({}, klaviyo(event, at=NOW).body, NOW)
        assert isinstance(stated, Sequence)
        assert [each.at for each in stated] == [at]


def test_nobody_leaves_brevo_in_the_future() -> None:
    for at in (NOW - timedelta(days=1), NOW + timedelta(days=1)):
        stated = Brevo(settings_with()).read({}, brevo("unsubscribe", "ada@example.org", at).body, NOW)
        assert isinstance(stated, Statement)
        assert stated.at == min(at, NOW)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PayPalDouble]:
    with running_paypal(tmp_path_factory.mktemp("paypal")) as double:
        yield double


@pytest.fixture
def paypal(running: PayPalDouble) -> PayPalDouble:
    running.fetched, running.tokens, running.down, running.verdict = 0, 0, False, 200
    return running


def sender_of(double: PayPalDouble, *ids: str) -> Sender:
    return PayPal(settings_with(webhooks_paypal_ids=list(ids or (double.webhook_id,))), Certificates({double.host}, double.roots))


async def refusal(sender: Sender, headers: Mapping[str, str], body: bytes = BODY, now: datetime = NOW) -> str:
    """Why a webhook is refused; empty if it is taken."""
    try:
        await sender.verify(headers, body, now)
    except Unauthenticated as error:
        return str(error)
    return ""


async def test_what_paypal_signs_is_taken_and_nothing_else(paypal: PayPalDouble) -> None:
    headers, sender = paypal.sign(BODY, NOW), sender_of(paypal)
    assert await refusal(sender, headers) == ""
    assert await refusal(sender_of(paypal, "another-webhook", paypal.webhook_id), headers) == ""
    assert "does not match" in await refusal(sender_of(paypal, "another-webhook"), headers)
    assert "does not match" in await refusal(sender, headers, BODY + b" ")
    flipped = b64encode(bytes([b64decode(headers["paypal-transmission-sig"])[0] ^ 1, *b64decode(headers["paypal-transmission-sig"])[1:]]))
    assert "does not match" in await refusal(sender, {**headers, "paypal-transmission-sig": flipped.decode()})
    assert paypal.fetched == 3, "each sender fetched it once"


@pytest.mark.parametrize("name", ["auth-algo", "transmission-id", "transmission-time", "transmission-sig", "cert-url"])
async def test_each_header_of_paypal_is_needed(paypal: PayPalDouble, name: str) -> None:
    headers = {key: value for key, value in paypal.sign(BODY, NOW).items() if key != f"paypal-{name}"}
    assert f"paypal-{name} is missing" in await refusal(sender_of(paypal), headers)


async def test_times_of_paypal_reach_as_far_back_as_it_repeats_webhooks(paypal: PayPalDouble) -> None:
    headers, sender = paypal.sign(BODY, NOW), sender_of(paypal)
    assert await refusal(sender, headers, now=NOW + timedelta(days=3)) == ""
    assert "ago" in await refusal(sender, headers, now=NOW + timedelta(days=3, hours=2))
    assert "ahead" in await refusal(sender, headers, now=NOW - timedelta(seconds=301))
    assert "no time" in await refusal(sender, {**headers, "paypal-transmission-time": "yesterday"})


@pytest.mark.parametrize(
    "url",
    [
        "http://{host}/cert.pem",
        "https://evil.example/cert.pem",
        "https://{host}.evil.example/cert.pem",
        "https://evil.example@{host}/cert.pem",
        "https://{host}@evil.example/cert.pem",
        "file:///etc/hostname",
        "//{host}/cert.pem",
    ],
)
async def test_certificates_come_from_paypal_alone(paypal: PayPalDouble, url: str) -> None:
    headers = {**paypal.sign(BODY, NOW), "paypal-cert-url": url.format(host=paypal.host)}
    assert "not an address of PayPal" in await refusal(sender_of(paypal), headers)
    assert paypal.fetched == 0


@pytest.mark.parametrize(
    "path", ["missing.pem", "other-name.pem", "expired.pem", "self-signed.pem", "garbage.pem", "huge.pem", "elliptic.pem"]
)
async def test_only_a_valid_certificate_of_paypal_signs(paypal: PayPalDouble, path: str) -> None:
    headers = paypal.sign(BODY, NOW, certificate=path)
    assert "cert-url" in await refusal(sender_of(paypal), headers)


async def test_a_certificate_that_can_not_be_fetched_is_an_outage(paypal: PayPalDouble) -> None:
    paypal.down = True
    with pytest.raises(Unavailable):
        await sender_of(paypal).verify(paypal.sign(BODY, NOW), BODY, NOW)


async def test_many_webhooks_at_once_make_few_calls_of_paypal(paypal: PayPalDouble) -> None:
    headers, sender = paypal.sign(BODY, NOW), sender_of(paypal)
    assert set(await asyncio.gather(*(refusal(sender, headers) for _ in range(10)))) == {""}
    assert paypal.fetched <= 2


async def test_paypal_is_asked_where_the_shop_wants_it(paypal: PayPalDouble) -> None:
    app: dict[str, object] = {"webhooks_paypal_client_id": "app", "webhooks_paypal_api": f"https://{paypal.host}"}

    def asking(secret: str = OWN, webhook: str = paypal.webhook_id) -> Sender:
        own = settings_with(webhooks_paypal_ids=[webhook], webhooks_paypal_client_secret=secret, **app)
        return PayPal(own, roots=paypal.roots)

    headers, sender = paypal.sign(BODY, NOW), asking()
    assert await refusal(sender, headers) == ""
    assert "does not match" in await refusal(sender, headers, BODY.replace(b" ", b""))
    assert "does not match" in await refusal(asking(webhook="another"), headers)
    assert "not JSON" in await refusal(sender, headers, b'"')
    assert "paypal-cert-url is missing" in await refusal(sender, {**headers, "paypal-cert-url": ""})
    assert (paypal.tokens, paypal.fetched) == (2, 0)
    with pytest.raises(Unavailable):
        await asking(secret="another").verify(headers, BODY, NOW)
    paypal.down = True
    with pytest.raises(Unavailable):
        await sender.verify(headers, BODY, NOW)
    paypal.down = False
    assert await refusal(sender, headers) == ""
    tokens = paypal.tokens
    for paypal.verdict in (400, 422):
        assert "does not match" in await refusal(sender, headers)
    for paypal.verdict in (500, 429, 401):
        with pytest.raises(Unavailable):
            await sender.verify(headers, BODY, NOW)
        assert paypal.tokens == tokens
    paypal.verdict = 200
    assert await refusal(sender, headers) == ""
    assert paypal.tokens == tokens + 1, "a token that was refused is not used again"


def test_the_checksum_is_the_one_that_paypal_documents() -> None:
    assert zlib.crc32(b"123456789") == 0xCBF43926
