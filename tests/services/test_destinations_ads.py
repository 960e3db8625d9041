"""Google Analytics and Meta, over real HTTP: what is sent, what an answer means, and an order's way through the queue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from pmp.gdpr.v1.change_pb2 import ConsentChanged
from pmp.identity.v1.change_pb2 import AliasChanged, IdentityChanged
from pmp.purchases.v1.change_pb2 import PurchaseChanged

from kit.people.persons import Persons
from kit.people.privacy import Consents
from kit.service.resources import Resources
from kit.service.runtime import ServiceRuntime
from kit.settings import Settings
from services.destinations.composition import ROLE
from services.destinations.configuration import load
from services.destinations.ga4.destination import Ga4
from services.destinations.ga4.options import Ga4Options
from services.destinations.kind import Destination, Erasure, Outcome, Outgoing, Result
from services.destinations.repository import Destinations
from tests.databases import newest_database
from tests.doubles import ga4, meta
from tests.doubles.ga4 import GoogleAnalytics, google_analytics
from tests.doubles.meta import Meta
from tests.outgoing import GOLDEN, NOW, ago, event, order, outgoing, refunded, sealed
from tests.roles import serving, settings_for
from tests.topics import Topics

FILE = """
[google]
kind = "ga4"
measurement_id = "{stream}"
api_secret = "GA4_SECRET"
endpoint = "{google}"
events = ["page_view", "purchase", "refund"]

[meta]
kind = "meta"
dataset_id = "{dataset}"
access_token = "META_TOKEN"
endpoint = "{meta}"
events = ["PageView", "Purchase"]
"""


@pytest.fixture
def google() -> Iterator[GoogleAnalytics]:
    with google_analytics() as double:
        yield double
        assert double.violations == []


@pytest.fixture
def facebook() -> Iterator[Meta]:
    with meta.meta() as double:
        yield double
        assert double.refused == []


@pytest.fixture
def file(google: GoogleAnalytics, facebook: Meta, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GA4_SECRET", ga4.SECRET)
    monkeypatch.setenv("META_TOKEN", meta.TOKEN)
    path = tmp_path / "destinations.toml"
    path.write_text(FILE.format(stream=ga4.STREAM, dataset=meta.DATASET, google=google.url, meta=facebook.url))
    return path


@pytest.fixture
async def destinations(file: Path) -> AsyncIterator[dict[str, Destination[Any]]]:
    opened = dict(load(file))
    yield opened
    for each in opened.values():
        await each.http.aclose()


def views(destination: Destination[Any], ids: Sequence[str], **fields: Any) -> list[Outgoing]:
    """Deliveries of page views."""
    return [one for id_ in ids for one in outgoing(destination, _view(id_, **fields))]


def _view(id_: str, **fields: Any) -> Any:
    stored = event(id=id_, **fields)
    stored.key = f"~{id_}"
    return stored


async def test_google_gets_an_order_and_its_refund(destinations: dict[str, Destination[Any]], google: GoogleAnalytics) -> None:
    sent = outgoing(destinations["google"], refunded(order(), "29.90"), sealed())
    results = [result for each in sent for result in await destinations["google"].send([each])]
    assert results == [Result(Outcome.DELIVERED, "HTTP 204")] * 2
    assert google.revenue() == 199.0
    assert [each["consent"]["ad_user_data"] for each in google.bodies] == ["GRANTED"] * 2


@pytest.mark.parametrize(
    ("status", "outcome", "is_ambiguous"),
    [
        (401, Outcome.UNAUTHORIZED, False),
        (413, Outcome.REJECTED, False),
        (429, Outcome.RETRY, False),
        (502, Outcome.RETRY, True),
    ],
)
async def test_what_googles_answers_mean(
    destinations: dict[str, Destination[Any]], google: GoogleAnalytics, status: int, outcome: Outcome, is_ambiguous: bool
) -> None:
    google.status, google.headers = status, (("retry-after", "30"),)
    [result] = await destinations["google"].send(outgoing(destinations["google"], order(), sealed()))
    assert (result.outcome, result.is_ambiguous) == (outcome, is_ambiguous)
    assert result.retry_after == (timedelta(seconds=30) if status == 429 else None)


async def test_without_a_client_id_google_gets_nothing(destinations: dict[str, Destination[Any]], google: GoogleAnalytics) -> None:
    [result] = await destinations["google"].send(outgoing(destinations["google"], order(), sealed({})))
    assert (result.outcome, google.bodies) == (Outcome.WITHHELD, [])


async def test_a_test_call_leaves_nothing_at_google(destinations: dict[str, Destination[Any]], google: GoogleAnalytics) -> None:
    result = await destinations["google"].test()
    assert (result.outcome, google.validated, google.bodies) == (Outcome.DELIVERED, 1, [])


async def test_only_a_purchase_may_be_sent_to_google_again(destinations: dict[str, Destination[Any]]) -> None:
    google = destinations["google"]
    repeatable = {each.wanted.name: google.is_repeatable(each.wanted) for each in outgoing(google, refunded(order(), "29.90"))}
    assert repeatable == {"purchase": True, "refund": False}
    assert [google.is_repeatable(each.wanted) for each in views(google, ["a"])] == [False]


async def test_a_batch_for_meta_is_one_request_and_a_repetition_counts_once(
    destinations: dict[str, Destination[Any]], facebook: Meta
) -> None:
    batch = [*views(destinations["meta"], ["a", "b", "c"]), *outgoing(destinations["meta"], order(), sealed())]
    for _ in range(2):
        assert await destinations["meta"].send(batch) == [Result(Outcome.DELIVERED, "received")] * 4
    assert facebook.requests == [4, 4]
    assert sorted(each["event_id"] for each in facebook.counted()) == ["a", "b", "c", "order-1016"]
    assert all(destinations["meta"].is_repeatable(each.wanted) for each in batch)


async def test_events_that_meta_refuses_cost_no_others(destinations: dict[str, Destination[Any]], facebook: Meta) -> None:
    ids = [f"v{number}" for number in range(100)]
    facebook.refuses = {"v7", "v93"}
    results = await destinations["meta"].send(views(destinations["meta"], ids))
    refused = {id_ for id_, result in zip(ids, results, strict=True) if result.outcome is Outcome.REJECTED}
    assert refused == {"v7", "v93"}
    assert {result.detail for result in results} == {"received", "HTTP 400, Graph error 100/2804003"}
    assert {each["event_id"] for each in facebook.events} == {*ids} - refused


async def test_an_attempt_ends_even_if_meta_refuses_everything_and_the_next_goes_on(
    destinations: dict[str, Destination[Any]], facebook: Meta
) -> None:
    ids = [f"v{number}" for number in range(destinations["meta"].most_at_once)]
    facebook.refuses = {*ids}
    results = await destinations["meta"].send(views(destinations["meta"], ids))
    assert len(facebook.requests) == 39
    assert {result.outcome for result in results} == {Outcome.REJECTED}
    assert await destinations["meta"].send(views(destinations["meta"], ids[:1])) == [
        Result(Outcome.REJECTED, "HTTP 400, Graph error 100/2804003")
    ]


async def test_an_event_that_grew_too_old_costs_no_others(destinations: dict[str, Destination[Any]], facebook: Meta) -> None:
    old = views(destinations["meta"], ["old"], at=ago(days=6, hours=23, minutes=57))
    results = await destinations["meta"].send([*old, *views(destinations["meta"], ["new"])])
    assert [each.outcome for each in results] == [Outcome.EXPIRED, Outcome.DELIVERED]
    assert [each["event_id"] for each in facebook.events] == ["new"]


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        ({"error": {"code": 190}, "status": 401}, Outcome.UNAUTHORIZED),
        ({"error": {"code": 100, "error_subcode": 33}}, Outcome.UNAUTHORIZED),
        ({"error": {"code": 4}, "headers": (("retry-after", "60"),)}, Outcome.RETRY),
        ({"error": {"code": 1}, "status": 500}, Outcome.RETRY),
    ],
)
async def test_an_error_of_the_graph_is_that_of_the_whole_batch(
    destinations: dict[str, Destination[Any]], facebook: Meta, change: dict[str, Any], outcome: Outcome
) -> None:
    for name, value in change.items():
        setattr(facebook, name, value)
    results = await destinations["meta"].send(views(destinations["meta"], ["a", "b"]))
    assert [each.outcome for each in results] == [outcome] * 2
    assert [each.retry_after for each in results] == [timedelta(seconds=60) if "headers" in change else None] * 2
    assert facebook.requests == [2]


async def test_a_test_call_leaves_nothing_at_meta_and_shows_wrong_credentials(
    file: Path, destinations: dict[str, Destination[Any]], facebook: Meta, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await destinations["meta"].test()).outcome is Outcome.DELIVERED
    monkeypatch.setenv("META_TOKEN", "another")
    other = load(file)["meta"]
    assert (await other.test()).outcome is Outcome.UNAUTHORIZED
    await other.http.aclose()
    assert facebook.events == []
    facebook.refused.clear()


async def test_google_deletes_a_person_by_user_id_where_a_service_account_may(
    destinations: dict[str, Destination[Any]], google: GoogleAnalytics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GA4_ACCOUNT", google.service_account())
    account = {"user_ids": True, "property_id": ga4.PROPERTY, "service_account": "GA4_ACCOUNT", "admin_endpoint": google.url}
    table = {"kind": "ga4", "measurement_id": ga4.STREAM, "api_secret": "GA4_SECRET", **account}
    destination = Ga4("google", Ga4Options.model_validate(table), destinations["google"].http)
    person = Erasure(["wordpress:42", "user:u1", "session:s1", "email:00"], ["ada@example.org"])
    assert await destination.erase(person) == Result(Outcome.DELIVERED, "by user id")
    assert google.deleted == ["42", "u1"]
    assert await destination.erase(Erasure(["session:s1"], [])) is None, "Google may know the browser, and can't be asked to delete it"
    google.accepts_accounts = False
    refusal = await destination.erase(person)
    assert (refusal, google.deleted) == (Result(Outcome.UNAUTHORIZED, "HTTP 401"), ["42", "u1"])
    google.accepts_accounts, google.deletion_status = True, 503
    assert await destination.erase(person) == Result(Outcome.RETRY, "HTTP 503", is_ambiguous=True)


async def test_neither_deletes_a_person_otherwise(destinations: dict[str, Destination[Any]]) -> None:
    person = Erasure(["user:u1"], ["ada@example.org"])
    assert [await each.erase(person) for each in destinations.values()] == [None, None]


async def test_an_error_of_the_connection_is_raised(destinations: dict[str, Destination[Any]]) -> None:
    gone = type(destinations["meta"])(
        "gone", destinations["meta"].options.model_copy(update={"endpoint": "http://127.0.0.1:1"}), httpx.AsyncClient()
    )
    with pytest.raises(httpx.ConnectError):
        await gone.send(views(gone, ["a"]))
    await gone.http.aclose()


async def _sealed(resources: Resources, message: PurchaseChanged) -> PurchaseChanged:
    """The order with what the golden purchase has sealed, as purchases publishes it."""
    seal = (await resources.keys.seals({message.subject}))[message.subject]
    for name, plain in sealed().items():
        setattr(message, f"sealed_{name}", seal.seal(plain, context=name))
    return message


async def _books(runtime: ServiceRuntime) -> dict[str, dict[str, int]]:
    async with runtime.sessions.reading() as session:
        books = await Destinations(session).books()
    return {name: {state: count for state, count in each.by_state.items() if count} for name, each in books.items()}


def _is_person(user: int) -> IdentityChanged:
    link = AliasChanged(subject=f"wordpress:{user}", user_id=f"u-{user}")
    link.linked_at.FromDatetime(NOW)
    return IdentityChanged(alias=link)


def _choice(user: int, *, granted: bool) -> ConsentChanged:
    choice = ConsentChanged(subject=f"wordpress:{user}")
    choice.third_party_sharing.granted = granted
    choice.third_party_sharing.decided_at.FromDatetime(NOW)
    return choice


async def test_an_order_passes_the_queue_once_sealed_until_it_is_sent_and_only_with_consent(
    settings: Settings, resources: Resources, file: Path, google: GoogleAnalytics, facebook: Meta
) -> None:
    async with newest_database(settings, "destinations"):
        runtime = ROLE.compose(settings_for(ROLE, settings, destinations=file), resources)
        async with serving(runtime, runtime.background):
            topics = Topics(runtime)
            # Both are known. Identity can't be asked for their profiles here, and need not be for an order.
            async with runtime.sessions.begin() as session:
                await Persons(session).apply([_is_person(42), _is_person(43)])
                await Consents(session).apply([_choice(42, granted=True), _choice(43, granted=False)])
            now = datetime.now(UTC)  # what happened before the destinations were added is not sent
            sold = await _sealed(resources, order(now))
            other = await _sealed(resources, order(now, purchase_id="p-1017", order_id="1017", user_id="43", subject="wordpress:43"))
            await topics.happen(sold, other)
            await topics.happen(sold, refunded(sold, "29.90", now))
            expected = {"google": {"delivered": 3}, "meta": {"delivered": 1, "withheld": 1}}
            async with asyncio.timeout(30):
                while await _books(runtime) != expected:  # noqa: ASYNC110 (another task stores it)
                    await asyncio.sleep(0.05)
    assert google.revenue() == round(2 * GOLDEN["amount"] - 29.9, 2)
    assert sorted((body["events"][0]["params"]["transaction_id"], body["consent"]["ad_user_data"]) for body in google.bodies) == [
        ("1016", "GRANTED"),
        ("1016", "GRANTED"),
        ("1017", "DENIED"),
    ]
    [purchase] = facebook.events
    assert (purchase["event_id"], purchase["action_source"], "ph" in purchase["user_data"]) == ("order-1016", "website", True)
