"""`pmp dead-letters`: lists the messages that a service set aside, retries them or drops them."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence

import typer
from google.protobuf.descriptor_pool import Default
from google.protobuf.json_format import MessageToJson
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from pmp.log.v1.log_pb2 import Record
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from cli.databases import service_sessions
from cli.errors import CommandFailed
from kit.log.consume import dead_letters
from kit.log.consume.dead_letters import DEAD, DROPPED, RETRYING, DeadLetter


def chosen(ids: Sequence[int] | None, *, every: bool) -> Sequence[int] | None:
    """The ids that were given; None means all dead letters.

    Raises:
        CommandFailed: no ids were given, or ids together with `--all`.
    """
    if every == bool(ids):
        raise CommandFailed("name the messages by their ids, or all of them with --all")
    return None if every else ids


async def list_letters(service: str, url: str, console: Console) -> None:
    """Prints the dead letters of a service, oldest first."""
    table = Table("id", "state", "set aside", "message", "reason", box=SIMPLE, show_edge=False)
    waiting = 0
    for letter in await _all_letters(service, url):
        waiting += letter.state == DEAD
        table.add_row(
            str(letter.id), letter.state, f"{letter.created_at:%Y-%m-%d %H:%M:%S}", letter.record.type.rpartition(".")[2], letter.reason
        )
    if table.row_count:
        console.print(table)
    console.print(
        f"{waiting} of {service}'s messages wait for a decision." if waiting else f"None of {service}'s messages waits for a decision."
    )


async def show_letter(service: str, url: str, letter_id: int) -> None:
    """Prints a dead letter and its message as JSON. Sealed values stay sealed.

    Raises:
        CommandFailed: it does not exist.
    """
    async with service_sessions(service, url) as sessions, sessions() as session:
        letter = await dead_letters.get(session, letter_id)
    if letter is None:
        raise CommandFailed(f"{service} has no dead letter {letter_id}: see `pmp dead-letters list {service}`")
    facts = {
        "reason": letter.reason,
        "state": letter.state,
        "set aside": letter.created_at.isoformat(),
        "topic": f"{letter.topic}, partition {letter.partition}, position {letter.position}, message {letter.ordinal}",
        "trace": letter.record.traceparent or "none",
        "message": letter.record.type,
    }
    for name, value in facts.items():
        typer.echo(f"{name + ':':<10} {value}")
    typer.echo(_json(letter.record))


async def mark_letters(service: str, url: str, state: str, ids: Sequence[int] | None) -> int:
    """Marks dead letters (None: all of them) as `retrying` or `dropped` and returns their number. The consumer does the rest.

    Raises:
        CommandFailed: one of the ids is not a dead letter's. None is marked then.
    """
    async with service_sessions(service, url) as sessions, sessions.begin() as session:
        count = await dead_letters.mark(session, state, ids)
        if ids is not None and count != len(set(ids)):
            raise CommandFailed(f"not all of them are dead letters of {service}: see `pmp dead-letters list {service}`")
    return count


async def retry(service: str, url: str, ids: Sequence[int] | None) -> int:
    """Retries dead letters with the current handler."""
    return await mark_letters(service, url, RETRYING, ids)


async def drop(service: str, url: str, ids: Sequence[int] | None) -> int:
    """Drops dead letters. The books keep counting them."""
    return await mark_letters(service, url, DROPPED, ids)


async def _all_letters(service: str, url: str) -> list[DeadLetter]:
    letters: list[DeadLetter] = []
    async with service_sessions(service, url) as sessions, sessions() as session:
        while page := await dead_letters.find(session, after=letters[-1].id if letters else 0):
            letters += page
    return letters


def _json(record: Record) -> str:
    """The message as JSON, if its type still exists and matches."""
    package = record.type.rpartition(".")[0]
    try:
        for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
            if module.name.endswith("_pb2"):
                importlib.import_module(f"{package}.{module.name}")
        message = GetMessageClass(Default().FindMessageTypeByName(record.type)).FromString(record.payload)
    except (ImportError, ValueError, KeyError, DecodeError):
        return f"{len(record.payload)} bytes that no current message type matches: {record.payload.hex()}"
    return MessageToJson(message, preserving_proto_field_name=True)
