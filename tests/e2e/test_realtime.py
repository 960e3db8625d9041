"""Streams of events and orders on a real mesh: what arrives, for whom, and what becomes of it when something breaks."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import grpc
import httpx
import jwt
import psutil
import pytest
from pmp.realtime.v1 import realtime_pb2 as pb
from pmp.realtime.v1.realtime_pb2_grpc import RealtimeServiceStub
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from cli.credentials import Scope, credentials
from cli.folder import DataFolder
from cli.layout import Processes
from services.realtime.cursor import Partition, cursor_of
from services.realtime.topics import TOPICS
from tests.background import eventually
from tests.e2e.mesh import Mesh, running
from tests.e2e.streams import DASHBOARD, EVENTS, TRANSPORTS, Read, Response, page_view, server_sent, web_socket
from tests.servers import until

ORIGIN = "https://shop.example"
PER_CALLER = 4
_numbers = count(1)


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    settings = {
        "PMP_SITE_HOSTS": '["shop.example"]',
        "PMP_REALTIME_STREAMS_PER_CALLER": str(PER_CALLER),
        "PMP_REALTIME_WINDOW_BYTES": "4194304",
        "PMP_RATE_USER_PER_HOUR": "100000",
    }
    with running(tmp_path_factory.mktemp("mesh") / "data", environment=settings, processes=Processes.EACH) as mesh:
        yield mesh


@pytest.fixture
def reader(mesh: Mesh) -> dict[str, str]:
    """Headers of a reader that has no stream yet."""
    return mesh.credentials("read", f"reader-{next(_numbers)}")


@pytest.fixture
async def shop(mesh: Mesh) -> AsyncGenerator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=mesh.url, headers=mesh.credentials("site"), timeout=30) as client:
        yield client


async def track(shop: httpx.AsyncClient, *events: dict[str, object]) -> list[str]:
    """Sends events; returns their ids."""
    answer = await shop.post("/api/v1/events/batch", json={"events": events})
    assert answer.status_code == 200, answer.text
    assert answer.json()["success"], answer.text
    return [str(event["id"]) for event in events]


async def next_with_messages(responses: Any, seconds: float = 10.0) -> list[Response]:
    """The messages of the next response that has some."""
    async with asyncio.timeout(seconds):
        async for response in responses:
            if "messages" in response:
                return response["messages"]
    raise AssertionError("the stream has ended")


async def next_two(responses: Any) -> set[str]:
    """The next two messages, which may come in one response: the id of an event, or the type of another message."""
    seen: list[Response] = []
    while len(seen) < 2:
        seen += await next_with_messages(responses)
    return {message.get("event", {}).get("id", message["type"]) for message in seen}


def order(number: int, **fields: object) -> dict[str, object]:
    """A paid order of a course."""
    lines = [{"product_id": "pmp", "product_name": "PMP", "product_type": "course", "quantity": 1, "amount": 19.99}]
    return {
        "timestamp": page_view(0)["timestamp"],
        "order_id": f"order-{number}",
        "user_id": "42",
        "session_id": "basket-42",
        "amount": 19.99,
        "currency": "EUR",
        "payment_status": "completed",
        "payment_method": "stripe",
        "lines": lines,
        **fields,
    }


async def test_an_event_and_an_order_arrive_over_each_transport_within_a_second(
    mesh: Mesh, reader: dict[str, str], shop: httpx.AsyncClient
) -> None:
    async with AsyncExitStack() as stack:
        streams = {name: await stack.enter_async_context(opened(mesh.url, reader)) for name, opened in TRANSPORTS.items()}
        for responses in streams.values():
            assert (await anext(responses))["cursor"]
        number = next(_numbers)
        began = monotonic()
        [sent] = await track(shop, page_view(number, page_url="https://shop.example/courses/pmp?utm_source=letter"))
        for name, responses in streams.items():
            [message] = await next_with_messages(responses, 1.0 - (monotonic() - began))
            assert message["event"]["id"] == sent, name
            assert (message["type"], message["event"]["course"], message["event"]["source"]) == ("page_view", "pmp", "letter")
        began = monotonic()
        answer = await shop.post("/api/v1/purchases/track", json=order(number))
        assert answer.status_code == 200, answer.text
        for name, responses in streams.items():
            [message] = await next_with_messages(responses, 1.0 - (monotonic() - began))
            assert message["type"] == "order", name
            assert message["order"]["order_id"] == f"order-{number}"
            assert (message["order"]["paid_amount"], message["order"]["currency"]) == ("19.99", "EUR")


async def test_a_stream_shows_what_is_selected_and_nothing_else(mesh: Mesh, reader: dict[str, str], shop: httpx.AsyncClient) -> None:
    async with (
        web_socket(mesh.url, reader, "?type=lead_capture&type=order") as leads,
        web_socket(mesh.url, reader, "?course=pmp") as course,
    ):
        assert set(await anext(leads)) == set(await anext(course)) == {"cursor"}
        number = next(_numbers)
        await track(shop, page_view(f"{number}-other"))
        [about] = await track(shop, page_view(f"{number}-course", metadata={"course_id": "pmp"}))
        [lead] = await track(shop, page_view(f"{number}-lead", event_type="lead_capture"))
        await shop.post("/api/v1/purchases/track", json=order(number))
        assert await next_two(leads) == {lead, "order"}
        assert await next_two(course) == {about, "order"}


async def test_personal_fields_are_shown_to_an_admin_alone(mesh: Mesh, reader: dict[str, str], shop: httpx.AsyncClient) -> None:
    personal = {"user_id": "471100815", "session_id": "a-session-of-ann", "page_title": "Welcome back, Ann"}
    async with web_socket(mesh.url, reader) as public, web_socket(mesh.url, mesh.credentials("admin")) as admin:
        await anext(public)
        await anext(admin)
        await track(shop, page_view(next(_numbers), **personal))
        [shown] = await next_with_messages(admin)
        assert {name: shown["event"][name] for name in (*personal, "visitor")} == {**personal, "visitor": "471100815"}
        [shown] = await next_with_messages(public)
        assert not {*personal, "visitor"} & shown["event"].keys()
        assert not any(value in str(shown) for value in personal.values())
        await shop.post("/api/v1/purchases/track", json=order(next(_numbers)))
        [shown] = await next_with_messages(admin)
        assert (shown["order"]["user_id"], shown["order"]["session_id"]) == ("42", "basket-42")
        [shown] = await next_with_messages(public)
        assert not {"user_id", "session_id"} & shown["order"].keys()


async def follow(mesh: Mesh, headers: dict[str, str], transport: str, read: Read, expected: int) -> None:
    """Reads until so many events have arrived, coming back with the cursor whenever the connection breaks."""
    while len(read.ids) < expected:
        query = "?" + str(httpx.QueryParams({"since": read.cursor})) if read.cursor else ""
        try:
            async with TRANSPORTS[transport](mesh.url, headers, query) as responses:
                async for response in responses:
                    read.take(response)
                    if len(read.ids) >= expected:
                        return
        except (OSError, InvalidStatus, ConnectionClosed, httpx.HTTPError, AssertionError, grpc.aio.AioRpcError):
            pass
        await asyncio.sleep(0.1)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_reader_with_a_cursor_misses_and_repeats_nothing(
    mesh: Mesh, reader: dict[str, str], shop: httpx.AsyncClient, transport: str
) -> None:
    number, read = next(_numbers), Read([])
    async with TRANSPORTS[transport](mesh.url, reader) as responses:
        read.take(await anext(responses))
    following = asyncio.create_task(follow(mesh, reader, transport, read, 480))
    sent: list[str] = []
    killed = mesh.pid("realtime")
    for call in range(60):
        sent += await track(shop, *(page_view(f"{number}-{call}-{each}") for each in range(8)))
        if call == 20:
            mesh.kill("realtime")
        await asyncio.sleep(0.02)
    async with asyncio.timeout(60):
        await following
    assert sorted(read.ids) == sorted(sent)
    assert (read.missed, read.trimmed) == (0, False)
    assert mesh.pid("realtime") != killed


async def test_readers_that_all_come_back_at_once_miss_and_repeat_nothing(mesh: Mesh, shop: httpx.AsyncClient) -> None:
    async with web_socket(mesh.url, mesh.credentials("read")) as responses:
        cursor = (await anext(responses))["cursor"]
    number, reads = next(_numbers), [Read([], cursor=cursor) for _ in range(200)]
    callers = [credentials(DataFolder(mesh.data), Scope.READ, f"crowd-{each}", {}).headers() for each in range(len(reads) // PER_CALLER)]
    headers = [callers[each // PER_CALLER] for each in range(len(reads))]
    following = [asyncio.create_task(follow(mesh, caller, "websocket", read, 200)) for read, caller in zip(reads, headers, strict=True)]
    sent: list[str] = []
    for call in range(40):
        sent += await track(shop, *(page_view(f"{number}-{call}-{each}") for each in range(5)))
        if call == 15:
            mesh.kill("realtime")
        await asyncio.sleep(0.05)
    async with asyncio.timeout(90):
        await asyncio.gather(*following)
    assert [sorted(read.ids) for read in reads] == [sorted(sent)] * len(reads)
    assert not any(read.missed or read.trimmed for read in reads)


async def test_a_reader_that_does_not_read_is_given_the_number_of_what_it_missed_and_disturbs_nobody(
    mesh: Mesh, reader: dict[str, str], shop: httpx.AsyncClient
) -> None:
    number, quick, slow = next(_numbers), Read([]), Read([])
    events, address = 6000, httpx.URL(mesh.url)
    narrow = socket.create_connection((address.host, address.port))
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 262_144)
    process = psutil.Process(mesh.pid("realtime"))
    options: dict[str, Any] = {"sock": narrow, "max_queue": 1, "ping_interval": None}
    async with web_socket(mesh.url, reader, **options) as unread, web_socket(mesh.url, reader) as responses:
        slow.take(await anext(unread))
        quick.take(await anext(responses))
        before = process.memory_full_info().uss

        async def read_quickly() -> None:
            async for response in responses:
                quick.take(response)
                if len(quick.ids) == events:
                    return

        reading = asyncio.create_task(read_quickly())
        path = "https://shop.example/" + "a" * 4000
        for first in range(0, events, 250):
            await track(shop, *(page_view(f"{number}-{each}", page_url=path) for each in range(first, first + 250)))
        async with asyncio.timeout(60):
            await reading
            assert process.memory_full_info().uss - before < 32 * 2**20
            async for response in unread:
                slow.take(response)
                if len(slow.ids) + slow.missed >= events:
                    break
    assert len(set(quick.ids)) == events
    assert quick.missed == 0
    assert slow.missed > 0
    assert len(slow.ids) + slow.missed == events
    assert len(set(slow.ids)) == len(slow.ids)


EXPIRED = "expired"
BEYOND = cursor_of({Partition(topic, number): 2**40 for topic in TOPICS for number in range(4)})
START = cursor_of({Partition(topic, number): 0 for topic in TOPICS for number in range(4)})


class Refusal(NamedTuple):
    """A request, and how it is refused."""

    scope: str
    query: str
    headers: dict[str, str]
    status: int
    message: str


REFUSALS = {
    "no credentials": Refusal("", "", {}, 401, ""),
    "wrong scope": Refusal("track", "", {}, 403, "scope"),
    "another scope": Refusal("site", "", {}, 403, "scope"),
    "expired token": Refusal(EXPIRED, "", {}, 401, "expired"),
    "page of another origin": Refusal("read", "", {"origin": "https://stranger.example"}, 403, "origin"),
    "page without encryption": Refusal("read", "", {"origin": "http://shop.example"}, 403, "origin"),
    "no cursor": Refusal("read", "?since=nonsense", {}, 400, "since is not the cursor"),
    "cursor beyond the log": Refusal("read", f"?since={BEYOND}", {}, 400, "since lies after the newest message"),
    "unknown filter": Refusal("read", "?colour=red", {}, 400, "there is no parameter colour"),
    "wrong type": Refusal("read", "?type=page%20view", {}, 400, "type[0]"),
    "two cursors": Refusal("read", f"?since={START}&since={START}", {}, 400, "since may be given once"),
    "not UTF-8": Refusal("read", "?course=%ff", {}, 400, "the parameters can't be read"),
    "too many types": Refusal("read", "?" + "&".join(["type=a"] * 51), {}, 400, "type"),
}


def caller_of(mesh: Mesh, scope: str) -> dict[str, str]:
    if scope != EXPIRED:
        return mesh.credentials(scope, f"refused-{next(_numbers)}") if scope else {}
    own = mesh.credentials("read")
    claims = jwt.decode(own["authorization"].split()[1], options={"verify_signature": False})
    return {**own, "authorization": f"Bearer {jwt.encode({**claims, 'exp': 1_700_000_000}, secret_of(mesh), algorithm='HS256')}"}


def secret_of(mesh: Mesh) -> str:
    return httpx.Response(200, content=(mesh.data / "secrets.json").read_bytes()).json()["jwt_secrets"][0]


@pytest.mark.parametrize("expected", REFUSALS.values(), ids=REFUSALS.keys())
async def test_a_stream_is_refused_before_it_begins(mesh: Mesh, expected: Refusal) -> None:
    headers = {**caller_of(mesh, expected.scope), **expected.headers}
    answer = mesh.client.get(f"{mesh.url}{EVENTS}{expected.query}", headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (expected.status, "application/json")
    assert {"code", "message", "details"} == set(answer.json())
    assert expected.message in answer.json()["message"]
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"{mesh.url.replace('http', 'ws', 1)}{EVENTS}{expected.query}", additional_headers=headers)
    assert refused.value.response.status_code == expected.status
    assert expected.message in bytes(refused.value.response.body).decode()


@pytest.mark.parametrize(
    ("scope", "request_", "code"),
    [
        ("track", pb.StreamEventsRequest(), grpc.StatusCode.PERMISSION_DENIED),
        (EXPIRED, pb.StreamEventsRequest(), grpc.StatusCode.UNAUTHENTICATED),
        ("read", pb.StreamEventsRequest(since="nonsense"), grpc.StatusCode.INVALID_ARGUMENT),
        ("read", pb.StreamEventsRequest(type=["page view"]), grpc.StatusCode.INVALID_ARGUMENT),
    ],
    ids=["scope", "expired", "cursor", "type"],
)
async def test_a_native_caller_is_refused_likewise(mesh: Mesh, scope: str, request_: pb.StreamEventsRequest, code: grpc.StatusCode) -> None:
    async with grpc.aio.insecure_channel(mesh.url.removeprefix("http://")) as channel:
        stub: Any = RealtimeServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await anext(aiter(stub.StreamEvents(request_, metadata=tuple(caller_of(mesh, scope).items()))))
    assert refused.value.code() is code


def test_what_is_no_handshake_and_no_stream_is_refused(mesh: Mesh, reader: dict[str, str]) -> None:
    upgrade = {"connection": "upgrade", "upgrade": "websocket"}
    answer = mesh.client.get(f"{mesh.url}{EVENTS}", headers={**reader, **upgrade})
    assert (answer.status_code, answer.json()["message"]) == (400, "this is not how version 13 of WebSocket begins")
    assert mesh.client.post(f"{mesh.url}{EVENTS}", headers=reader).status_code == 404
    answer = mesh.client.get(f"{mesh.url}/api/v1/events/accounting", headers={**reader, **upgrade})
    assert (answer.status_code, answer.json()["code"]) == (400, 3)


def test_the_port_for_streams_takes_calls_from_inside_of_the_mesh_alone(mesh: Mesh) -> None:
    environment = Path(f"/proc/{mesh.pid('realtime')}/environ").read_text().split("\0")
    [addresses] = [value.removeprefix("PMP_STREAM_ADDRESSES=") for value in environment if value.startswith("PMP_STREAM_ADDRESSES=")]
    address = json.loads(addresses)["realtime"]
    answer = mesh.client.get(f"http://{address}{EVENTS}", headers={"x-pmp-scope": "admin", "x-pmp-client": "shop"})
    assert (answer.status_code, answer.json()["code"]) == (401, 16)
    assert mesh.client.get(f"http://{address}/api/v1/realtime/elsewhere").status_code == 404


async def test_a_client_that_sends_much_is_cut_off(mesh: Mesh, reader: dict[str, str]) -> None:
    async with connect(f"{mesh.url.replace('http', 'ws', 1)}{EVENTS}", additional_headers=reader, close_timeout=0.1) as connection:
        await connection.send("ignored")
        assert "cursor" in str(await connection.recv())
        await connection.send("x" * 100_000)
        with pytest.raises(ConnectionClosed) as closed:
            await connection.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009


async def test_a_page_sends_its_credentials_as_sub_protocols(mesh: Mesh, reader: dict[str, str], shop: httpx.AsyncClient) -> None:
    key, token = reader["x-api-key"], reader["authorization"].split()[1]
    address = f"{mesh.url.replace('http', 'ws', 1)}{EVENTS}"
    protocols: list[Any] = ["pmp.v1", f"pmp.key.{key}", f"pmp.bearer.{token}"]
    async with connect(address, subprotocols=protocols, additional_headers={"origin": ORIGIN}, close_timeout=0.1) as connection:
        assert connection.subprotocol == "pmp.v1"
        await connection.recv()
        [sent] = await track(shop, page_view(next(_numbers)))
        assert sent in str(await connection.recv())
    with pytest.raises(InvalidStatus, match="401"):
        await connect(address, subprotocols=["pmp.v1", f"pmp.key.{key}", "pmp.bearer.wrong"])  # pyright: ignore[reportArgumentType]
    logged = "".join(path.read_text() for path in (mesh.data / "logs").iterdir())
    assert key not in logged
    assert token not in logged


async def test_a_reconnecting_source_of_events_continues_by_its_header(mesh: Mesh, reader: dict[str, str], shop: httpx.AsyncClient) -> None:
    async with server_sent(mesh.url, reader) as responses:
        first = await anext(responses)
        assert first["sse"]["id"] == first["cursor"]
    sent = await track(shop, page_view(next(_numbers)), page_view(next(_numbers)))
    until(lambda: mesh.books()["pending"] == 0)
    since = {"last-event-id": first["cursor"]}
    async with server_sent(mesh.url, {**reader, **since}, f"?since={START}") as responses:
        read = Read([])
        async with asyncio.timeout(10):
            while len(read.ids) < len(sent):
                read.take(await anext(responses))
    assert sorted(read.ids) == sorted(sent)


async def test_a_caller_has_a_limited_number_of_streams(mesh: Mesh, reader: dict[str, str]) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(PER_CALLER):
            responses = await stack.enter_async_context(web_socket(mesh.url, reader))
            await anext(responses)
        with pytest.raises(InvalidStatus) as refused:
            await stack.enter_async_context(web_socket(mesh.url, reader))
        assert refused.value.response.status_code == 429
        assert refused.value.response.headers["retry-after"] == "5"
        assert f"{PER_CALLER} streams" in bytes(refused.value.response.body).decode()
        other = mesh.credentials("read", "another-reader")
        await anext(await stack.enter_async_context(web_socket(mesh.url, other)))

    async def is_free() -> bool:
        try:
            async with web_socket(mesh.url, reader) as responses:
                return "cursor" in await anext(responses)
        except InvalidStatus:
            return False

    await eventually(is_free)


async def has_cursor(read: Read) -> bool:
    return bool(read.cursor)


async def test_a_process_that_is_stopped_says_when_to_come_back(mesh: Mesh, reader: dict[str, str], shop: httpx.AsyncClient) -> None:
    async with AsyncExitStack() as stack:
        streams = {name: await stack.enter_async_context(opened(mesh.url, reader)) for name, opened in TRANSPORTS.items()}
        for responses in streams.values():
            await anext(responses)
        pid = mesh.pid("realtime")
        os.kill(pid, signal.SIGTERM)
        async with asyncio.timeout(10):
            for name, responses in streams.items():
                last = await anext(responses)
                assert 1 <= float(last["come_back_after"].removesuffix("s")) <= 5, name
                assert last["cursor"]
                if name == "events":
                    assert int(last["sse"]["retry"]) == round(1000 * float(last["come_back_after"].removesuffix("s")))
                if name == "websocket":
                    with pytest.raises(ConnectionClosed) as closed:
                        await anext(responses)
                    assert closed.value.rcvd is not None
                    assert closed.value.rcvd.code == 1012
                    assert closed.value.rcvd.reason.startswith("come back in ")
                else:
                    assert [response async for response in responses] == []
    again = Read([])
    following = asyncio.create_task(follow(mesh, mesh.credentials("read", "again"), "websocket", again, 1))
    await eventually(lambda: has_cursor(again))
    await track(shop, page_view(next(_numbers)))
    async with asyncio.timeout(10):
        await following


async def until_figures(responses: Any, holds: Callable[[Response], bool]) -> Response:
    """Applies the responses of a dashboard to each other until the figures are as they should be."""
    figures: Response = {}
    async with asyncio.timeout(10):
        async for response in responses:
            figures |= response
            if holds(figures):
                return figures
    raise AssertionError(figures)


async def test_the_dashboard_shows_who_is_here_and_what_is_sold(mesh: Mesh, reader: dict[str, str], shop: httpx.AsyncClient) -> None:
    number = next(_numbers)
    visitor = {"session_id": f"visitor-{number}", "page_url": f"https://shop.example/page-{number}?utm_source=letter-{number}"}
    async with web_socket(mesh.url, reader, path=DASHBOARD) as live, server_sent(mesh.url, reader, path=DASHBOARD) as events:
        before = await anext(live)
        assert before["complete"]
        assert (await anext(events))["complete"]
        began = monotonic()
        await track(shop, *(page_view(f"{number}-{each}", **visitor) for each in range(3)))
        answer = await shop.post("/api/v1/purchases/track", json=order(number, currency="CHF", amount=11.5))
        assert answer.status_code == 200, answer.text

        def holds(changes: Response) -> bool:
            figures = {**before, **changes}
            return figures["orders_today"] == before["orders_today"] + 1 and figures["visitors"] == before["visitors"] + 1

        for responses in (live, events):
            figures = {**before, **await until_figures(responses, holds)}
            assert figures["page_views_per_minute"] >= 3
            assert {"label": f"https://shop.example/page-{number}", "count": 3} in figures["top_pages"]["rows"]
            assert {"label": f"letter-{number}", "count": 3} in figures["top_sources"]["rows"]
            assert {"currency": "CHF", "amount": "11.50"} in figures["revenue_today"]["amounts"]
        assert monotonic() - began < 3
    async with server_sent(mesh.url, reader, path=DASHBOARD) as again:
        opened = await anext(again)
    assert opened["complete"]
    for name in ("visitors", "orders_today", "revenue_today", "top_pages", "top_sources"):
        assert opened[name] == figures[name], "made again from the topics and from purchases"


async def test_the_dashboard_changes_four_times_a_second_at_most(mesh: Mesh, reader: dict[str, str], shop: httpx.AsyncClient) -> None:
    number = next(_numbers)

    async def visit() -> None:
        for each in range(60):
            await track(shop, page_view(f"{number}-{each}", session_id=f"visitor-{number}-{each}"))
            await asyncio.sleep(0.02)

    async with web_socket(mesh.url, reader, path=DASHBOARD) as responses:
        before = await anext(responses)
        visiting = asyncio.create_task(visit())
        arrivals: list[float] = []
        visitors = before["visitors"]
        async with asyncio.timeout(20):
            while visitors < before["visitors"] + 60:
                response = await anext(responses)
                arrivals.append(monotonic())
                assert "complete" not in response
                visitors = response.get("visitors", visitors)
        await visiting
    assert len(arrivals) >= 3
    assert (arrivals[-1] - arrivals[0]) / (len(arrivals) - 1) >= 0.24


async def test_the_dashboard_takes_no_parameters_and_no_other_scope(mesh: Mesh, reader: dict[str, str]) -> None:
    answer = mesh.client.get(f"{mesh.url}{DASHBOARD}?since=1", headers=reader)
    assert (answer.status_code, answer.json()["message"]) == (400, "there is no parameter since")
    assert mesh.client.get(f"{mesh.url}{DASHBOARD}", headers=mesh.credentials("site")).status_code == 403


def test_nothing_personal_is_logged(mesh: Mesh) -> None:
    logged = Path(mesh.data / "logs" / "realtime.log").read_text()
    assert "StreamEvents" in logged
    for value in ("471100815", "a-session-of-ann", "Welcome back", "basket-42"):
        assert value not in logged
