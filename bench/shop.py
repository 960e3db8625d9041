"""Cost of the shop's services on MariaDB: orders and registrations against a bare insert, journeys and funnels over a million rows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import grpc
from google.protobuf.message import Message
from pmp.identity.v1 import identity_pb2
from pmp.identity.v1.identity_pb2_grpc import IdentityServiceStub
from pmp.journeys.v1 import journeys_pb2
from pmp.journeys.v1.journeys_pb2_grpc import JourneysServiceStub
from pmp.purchases.v1 import purchases_pb2
from pmp.purchases.v1.purchases_pb2_grpc import PurchasesServiceStub
from pmp_mesh_client.tokens import Scope
from sqlalchemy import text

from bench.servers import BenchFailed, Mesh, cpu_seconds, plan_mesh, running, running_mariadb
from kit.database.engine import Database, open_database
from kit.migrate import migrate

AT_ONCE: Final = 16
"""Concurrent calls or inserts."""
BATCH: Final = 500
"""Orders or persons in a batch."""
SERVICES: Final = ("identity", "journeys", "purchases")
"""The services that are measured."""
STEPS: Final = ("home", "product_view", "add_to_cart", "purchase")
"""Event types of the generated rows, in rotation, and the steps of the funnel."""
_ROWS_A_PERSON: Final = 100
_FUNNELS: Final = 3
_MEMORY: Final = "--innodb-buffer-pool-size=1G"
"""Holds a million touchpoints with their indexes, as a production server's memory would."""
_SHOP_OPENED: Final = "2024-01-01 00:00:00"

Progress = Callable[[int], None]
"""Receives the number of completed calls."""


@dataclass(frozen=True, slots=True)
class Timed:
    """Calls, one after the other on each of a few connections."""

    calls: int
    per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Shop:
    """The figures."""

    bare_insert: Timed
    """One row and its commit, with the driver alone."""
    track_purchase: Timed
    """One order per call, through the gateway."""
    register_user: Timed
    """One person per call, through the gateway."""
    track_purchases: Timed
    """A batch of orders per call, one call after the other, through the gateway."""
    register_users: Timed
    """A batch of persons per call, likewise."""
    cpu_us_per_call: dict[str, float]
    """Processor time of each process per order or registration, in microseconds."""
    touchpoints: int
    """Rows of the journeys and the funnel."""
    get_user_journey: Timed
    """The journey of a person with a hundred touchpoints, through the gateway."""
    funnel_seconds: float
    """The funnel over all rows, through the gateway: the median of three."""


async def measure(folder: Path, calls: int, touchpoints: int, progress: Progress) -> Shop:
    """Measures on a fresh mesh with its own MariaDB."""
    async with running_mariadb(folder, _MEMORY) as (url, server), AsyncExitStack() as stack:
        mesh = await plan_mesh(folder / "mesh", url)
        for service in SERVICES:
            await migrate(service, url.replace("{service}", service))
        await stack.enter_async_context(running(mesh.command("redis")))
        processes = {"mariadb": server} | await stack.enter_async_context(running(*map(mesh.command, SERVICES), mesh.gateway(*SERVICES)))
        target = mesh.credentials(Scope.SITE).url.removeprefix("http://")
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(target))
        bare = await _bare_inserts(url.replace("{service}", "identity"), calls, progress)
        before = {name: cpu_seconds(process) for name, process in processes.items()}
        orders = await _timed(calls, _purchase(mesh, channel), progress)
        people = await _timed(calls, _registration(mesh, channel), progress)
        cpu = {name: (cpu_seconds(process) - before[name]) * 1e6 / (2 * calls) for name, process in processes.items()}
        many_orders = await _timed(_batches(calls), _purchases(mesh, channel, calls), progress, at_once=1)
        many_people = await _timed(_batches(calls), _registrations(mesh, channel, calls), progress, at_once=1)
        async with open_database(url.replace("{service}", "journeys")) as database:
            await _fill(database, touchpoints)
        journeys = await _timed(calls, _journey(mesh, channel, touchpoints // _ROWS_A_PERSON), progress)
        seconds = sorted([await _funnel(mesh, channel, touchpoints // _ROWS_A_PERSON) for _ in range(_FUNNELS)])
        return Shop(bare, orders, people, many_orders, many_people, cpu, touchpoints, journeys, seconds[_FUNNELS // 2])


def _batches(calls: int) -> int:
    """The number of batches: about four times as many records as there are single calls."""
    return -(-4 * calls // BATCH)


async def _timed(calls: int, call: Callable[[int], Awaitable[object]], progress: Progress, at_once: int = AT_ONCE) -> Timed:
    """Makes calls number 0, 1, ... and measures their times."""
    todo = iter(range(calls))
    taken: list[float] = []

    async def connection() -> None:
        for number in todo:
            started = time.perf_counter()
            await call(number)
            taken.append(time.perf_counter() - started)
            progress(1)

    started = time.perf_counter()
    await asyncio.gather(*(connection() for _ in range(at_once)))
    seconds = time.perf_counter() - started
    taken.sort()
    p50, p95, p99 = (taken[min(calls - 1, int(calls * share))] * 1000 for share in (0.5, 0.95, 0.99))
    return Timed(calls, calls / seconds, p50, p95, p99)


async def _bare_inserts(url: str, calls: int, progress: Progress) -> Timed:
    """Inserts rows about as large as an order, each with its own commit."""
    async with open_database(url, AT_ONCE) as database:
        async with database.engine.begin() as connection:
            await connection.execute(text("CREATE TABLE bare (id VARCHAR(255) PRIMARY KEY, content VARCHAR(2000) NOT NULL)"))
        insert = text("INSERT INTO bare VALUES (:id, :content)")

        async def call(number: int) -> None:
            async with database.engine.begin() as connection:
                await connection.execute(insert, {"id": f"bare-{number}", "content": "x" * 500})

        return await _timed(calls, call, progress)


def _sender(mesh: Mesh, rpc: Any, scope: Scope = Scope.SITE) -> Callable[[Message], Awaitable[Any]]:
    metadata = tuple(mesh.credentials(scope).headers().items())

    async def send(request: Message) -> Any:
        return await rpc(request, metadata=metadata, timeout=60)

    return send


def _purchase(mesh: Mesh, channel: grpc.aio.Channel) -> Callable[[int], Awaitable[object]]:
    send = _sender(mesh, PurchasesServiceStub(channel).TrackPurchase)

    async def call(number: int) -> object:
        return await send(purchases_pb2.TrackPurchaseRequest(purchase=_order(number)))

    return call


def _purchases(mesh: Mesh, channel: grpc.aio.Channel, first: int) -> Callable[[int], Awaitable[object]]:
    send = _sender(mesh, PurchasesServiceStub(channel).TrackPurchases)

    async def call(number: int) -> object:
        orders = [_order(each) for each in _numbers(first, number)]
        return _accepted(await send(purchases_pb2.TrackPurchasesRequest(purchases=orders)))

    return call


def _registrations(mesh: Mesh, channel: grpc.aio.Channel, first: int) -> Callable[[int], Awaitable[object]]:
    send = _sender(mesh, IdentityServiceStub(channel).RegisterUsers)

    async def call(number: int) -> object:
        users = [_person(each) for each in _numbers(first, number)]
        return _accepted(await send(identity_pb2.RegisterUsersRequest(users=users)))

    return call


def _numbers(first: int, batch: int) -> range:
    """The numbers of the orders or persons of a batch, after those of the single calls."""
    return range(first + batch * BATCH, first + (batch + 1) * BATCH)


def _accepted(answer: Any) -> object:
    if answer.rejected:
        raise BenchFailed(f"{answer.rejected} of a batch were rejected")
    return answer


def _order(number: int) -> purchases_pb2.Purchase:
    purchase = purchases_pb2.Purchase(
        id=f"bench-{number}", order_id=f"{number}", user_id=f"{number}", amount=199, currency="USD", product_id="course"
    )
    purchase.timestamp.FromDatetime(datetime.now(UTC))
    return purchase


def _person(number: int) -> identity_pb2.Registration:
    return identity_pb2.Registration(wordpress_id=1_000_000 + number, email=f"p{number}@example.org", session_id=f"bench-{number}")


def _registration(mesh: Mesh, channel: grpc.aio.Channel) -> Callable[[int], Awaitable[object]]:
    send = _sender(mesh, IdentityServiceStub(channel).RegisterUser)

    async def call(number: int) -> object:
        return await send(identity_pb2.RegisterUserRequest(user=_person(number)))

    return call


def _journey(mesh: Mesh, channel: grpc.aio.Channel, people: int) -> Callable[[int], Awaitable[object]]:
    send = _sender(mesh, JourneysServiceStub(channel).GetUserJourney)

    async def call(number: int) -> object:
        person = f"{10_000_000 + number * 7919 % people}"
        answer = await send(journeys_pb2.GetUserJourneyRequest(id=person))
        if answer.touchpoint_count != _ROWS_A_PERSON:
            raise BenchFailed(f"person {person} has {answer.touchpoint_count} touchpoints")
        return answer

    return call


async def _funnel(mesh: Mesh, channel: grpc.aio.Channel, people: int) -> float:
    send = _sender(mesh, JourneysServiceStub(channel).GetFunnel, Scope.READ)
    started = time.perf_counter()
    answer = await send(journeys_pb2.GetFunnelRequest(steps=STEPS))
    if [step.people for step in answer.steps] != [people] * len(STEPS):
        raise BenchFailed(f"{people} people took all steps, and the funnel says {answer}")
    return time.perf_counter() - started


async def _fill(database: Database, touchpoints: int) -> None:
    """Creates rows of people with a hundred touchpoints each: the funnel's steps in rotation, a minute apart."""
    number, person = "seq.seq", f"{10_000_000} + FLOOR(seq.seq / {_ROWS_A_PERSON})"
    columns = {
        "id": f"CONCAT('fill-', LPAD({number}, 9, '0'))",
        "user_id": person,
        "subject": f"CONCAT('wordpress:', {person})",
        "session_id": f"CONCAT('fill-', FLOOR({number} / 10))",
        "stage": "'awareness'",
        "touchpoint": f"ELT({number} MOD {len(STEPS)} + 1, {', '.join(repr(step) for step in STEPS)})",
        "action_taken": f"ELT({number} MOD {len(STEPS)} + 1, {', '.join(repr(step) for step in STEPS)})",
        "timestamp": f"'{_SHOP_OPENED}' + INTERVAL {number} MINUTE",
        "value_generated": "0",
        "time_spent": "0",
        "channel": "''",
        "origin": "'event'",
        "created_at": f"'{_SHOP_OPENED}'",
    }
    named = ", ".join(f"`{name}`" for name in columns)
    rows = f"SELECT {', '.join(columns.values())} FROM seq_0_to_{touchpoints - 1} AS seq"  # noqa: S608 (no user input)
    async with database.engine.begin() as connection:
        await connection.execute(text(f"INSERT INTO user_journeys ({named}) {rows}".replace(":", "\\:")))
        await connection.execute(text("ANALYZE TABLE user_journeys"))
