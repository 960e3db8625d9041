"""`pmp demo`: sends a real shop's clickstream through the gateway and compares the mesh's books and figures with it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field

import grpc.aio
import httpx
from pmp.ingestion.v1.ingestion_pb2 import ListEventsRequest
from pmp.ingestion.v1.ingestion_pb2_grpc import IngestionServiceStub
from pmp_mesh_client.tokens import Scope
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from cli.books import Account, Books, account_table, read_books
from cli.calls import call, connect
from cli.clickstream import Outcome, Request, count_types, event_id, outcome, read_rows, requests
from cli.credentials import Credentials, credentials
from cli.demo_dashboard import show_dashboard
from cli.demo_shop import Shop
from cli.errors import CommandFailed
from cli.folder import DataFolder
from cli.local_secrets import Secrets
from cli.sending import CONNECTIONS, PATIENCE_SECONDS, send_all
from cli.state import MeshState, running_mesh
from kit.settings import MESH_HEADER

POLL_SECONDS = 0.5
"""Interval between two checks of the books."""
TOO_OLD = "the clickstream is of 2024, and older than this mesh keeps events: start it with PMP_SITE_RETENTION=P3650D"
SHOWN = 10
"""Number of the most frequent event types that are printed."""


@dataclass
class Tally:
    """The gateway's answers."""

    accepted: int = 0
    """Accepted events."""
    rejected: int = 0
    """Rejected events."""
    repeated: int = 0
    """Requests that were retried because the answer was late or the mesh busy."""
    surprises: list[str] = field(default_factory=list[str])
    """Answers that were not as expected."""


async def demo(folder: DataFolder, limit: int | None, console: Console) -> None:
    """Sends the clickstream, or its first `limit` rows, and prints the outcome.

    Raises:
        CommandFailed: no mesh is running, it does not answer, or its books or events differ from what was sent.
    """
    mesh, secrets = running_mesh(folder), Secrets.load(folder)
    rows = read_rows(limit)
    plan = list(requests(rows))
    expected = outcome(plan)
    console.print(
        f"{len(rows):,} events of a shop in {len(plan):,} requests; {expected.accepted - expected.distinct:,} of them are sent twice, "
        f"{expected.rejected:,} more are malformed."
    )
    reader, sender = credentials(folder, Scope.READ, environ={}), credentials(folder, Scope.SITE, environ={})
    async with connect(CONNECTIONS) as client:
        await Shop(client, sender, reader, console).register(rows)
        before = await read_books(client, reader)
        tally = await _send(client, sender, plan, console)
        after = await _wait_until_processed(client, reader, before.total.received + tally.accepted + tally.rejected, console)
    gained = after.total - before.total
    stored = await _stored_types(mesh, secrets, {event_id(number) for number in range(1, len(rows) + 1)})
    sent = count_types(rows)
    _print(console, tally, gained, stored, sent)
    problems = differences(tally, gained, after, expected)
    if stored != sent:
        problems.append(f"the mesh holds {stored.total():,} of the {sent.total():,} events, or other types of them")
    if problems:
        raise CommandFailed("\n".join(("the mesh and the clickstream differ:", *problems)))
    if gained.stored == 0:
        console.print("All of these events were stored before: this run added duplicates alone.")
    console.print(f"[green]The books balance[/], and the mesh holds each of the {len(rows):,} events once.")
    async with connect(CONNECTIONS) as client:
        await Shop(client, sender, reader, console).sell(rows, whole=limit is None)
    await show_dashboard(rows, reader, console, whole=limit is None)


async def _send(client: httpx.AsyncClient, sender: Credentials, plan: list[Request], console: Console) -> Tally:
    tally = Tally()

    async def send(request: Request) -> None:
        path, body = ("batch", {"events": request.events}) if request.is_batch else ("track", request.events[0])
        answer = await call(client, sender, f"/api/v1/events/{path}", body=body, patience=PATIENCE_SECONDS)
        tally.repeated += answer.attempts > 1
        _count(request, answer.response, tally)

    await send_all(plan, send, "events", console, weigh=lambda request: len(request.events))
    return tally


def _count(request: Request, answer: httpx.Response, tally: Tally) -> None:
    if request.is_batch and answer.is_success:
        verdicts = [bool(verdict["success"]) for verdict in answer.json()["results"]]
    else:
        verdicts = [answer.is_success] * len(request.events)
    deserved = [index not in request.malformed for index in range(len(request.events))]
    if verdicts != deserved or answer.status_code not in (200, 400):
        tally.surprises.append(f"{answer.status_code} {answer.text.strip()[:300]}")
    tally.accepted += sum(verdicts)
    tally.rejected += len(verdicts) - sum(verdicts)


async def _wait_until_processed(client: httpx.AsyncClient, reader: Credentials, received: int, console: Console) -> Books:
    """Waits until the worker has processed everything received.

    Raises:
        CommandFailed: it made no progress for a minute.
    """
    best, since = -1, time.monotonic()
    with console.status("waiting for the worker"):
        while True:
            books = await read_books(client, reader)
            done = books.total.received - books.total.pending
            if books.total.received >= received and books.total.pending == 0:
                return books
            if done > best:
                best, since = done, time.monotonic()
            if time.monotonic() - since > PATIENCE_SECONDS:
                message = f"{books.total.pending:,} events are pending and the worker makes no progress: see `pmp status` and its log"
                raise CommandFailed(message)
            await asyncio.sleep(POLL_SECONDS)


async def _stored_types(mesh: MeshState, secrets: Secrets, ids: set[str]) -> Counter[str]:
    """Counts the types of the stored events with these ids, read from the mesh's history."""
    types: Counter[str] = Counter()
    async with grpc.aio.insecure_channel(mesh.service_addresses["ingestion"]) as channel:
        stub = IngestionServiceStub(channel)
        for partition in range(mesh.log_partitions):
            call = stub.ListEvents(
                ListEventsRequest(partition=partition, after_position=0),
                metadata=((MESH_HEADER, secrets.mesh_token),),
                timeout=PATIENCE_SECONDS,
            )
            try:
                async for page in call:
                    types.update(stored.event.event_type for stored in page.events if stored.event.id in ids)
            except grpc.aio.AioRpcError as error:
                message = f"ingestion does not list its events ({error.code().name}: {error.details()}): see `pmp status`"
                raise CommandFailed(message) from error
    return types


def differences(tally: Tally, gained: Account, books: Books, expected: Outcome) -> list[str]:
    """Differences of the answers and the books from the expected outcome."""
    if any("PMP_SITE_RETENTION" in text for text in tally.surprises):
        return [TOO_OLD]
    problems = [f"an answer was not as expected: {text}" for text in tally.surprises[:SHOWN]]
    facts = {
        "the books are not balanced": not books.balanced or gained.received != gained.accounted,
        f"{tally.accepted:,} events were accepted, not {expected.accepted:,}": tally.accepted != expected.accepted,
        f"{tally.rejected:,} events were rejected, not {expected.rejected:,}": tally.rejected != expected.rejected,
        f"{gained.dead_lettered:,} events were set aside: see `pmp dead-letters list ingestion`": gained.dead_lettered != 0,
    }
    # A retried request may have been counted before its answer was lost.
    if tally.repeated == 0:
        facts["stored and duplicate are not the accepted events"] = gained.stored + gained.duplicate != tally.accepted
        facts["the books do not show the rejected events"] = gained.rejected != tally.rejected
    return [*problems, *(fact for fact, holds in facts.items() if holds)]


def _print(console: Console, tally: Tally, gained: Account, stored: Counter[str], sent: Counter[str]) -> None:
    console.print(account_table([gained], title="The books of this run"))
    if tally.repeated:
        console.print(f"{tally.repeated:,} requests were sent again because the mesh was busy or the answer was late.")
    types = Table("event", "in the mesh", "in the clickstream", title=f"The {SHOWN} most frequent events", box=SIMPLE, show_edge=False)
    for column in types.columns[1:]:
        column.justify = "right"
    for name, count in stored.most_common(SHOWN):
        types.add_row(name, f"{count:,}", f"{sent[name]:,}")
    console.print(types)
