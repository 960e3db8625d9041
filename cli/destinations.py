"""`pmp destinations`: the systems that are sent what happens, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias
from urllib.parse import quote, urlencode

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from cli.calls import call, connect
from cli.credentials import Credentials
from cli.errors import CommandFailed
from cli.pod_calls import call_service
from kit.settings import MeshSettings

_PATIENCE_SECONDS: Final = 10.0
_PATH: Final = "/api/v1/destinations"
Caller: TypeAlias = Credentials | MeshSettings
"""Who calls the gateway, or the settings by which a pod calls the service itself."""
_BOOKS: Final = ("delivered", "pending", "withheld", "expired", "dead_lettered")


async def fetch(caller: Caller) -> Sequence[Mapping[str, Any]]:
    """Returns all destinations, as the API lists them.

    Raises:
        CommandFailed: the mesh does not answer.
    """
    return (await _call(caller, _PATH)).get("destinations", [])


async def operate(caller: Caller, name: str, operation: str, **parameters: object) -> Mapping[str, Any]:
    """Calls an operation on a destination (`pause`, `dead-letters/retry`, ...), and returns the answer.

    Args:
        caller: of scope admin, or a pod.
        name: the destination.
        operation: the end of the path.
        parameters: those of the operation; a `_` at the end of a name is left out.

    Raises:
        CommandFailed: the mesh does not answer, or refuses the call.
    """
    query = urlencode({key.rstrip("_"): value for key, value in parameters.items() if value not in (None, "", [])}, doseq=True)
    return await _call(caller, f"{_PATH}/{quote(name, safe='')}/{operation}?{query}", body={})


async def dead_letters(caller: Caller, name: str) -> Sequence[Mapping[str, Any]]:
    """Returns the oldest dead letters of a destination.

    Raises:
        CommandFailed: the mesh does not answer, or knows no such destination.
    """
    return (await _call(caller, f"{_PATH}/{quote(name, safe='')}/dead-letters")).get("deliveries", [])


async def conflicts(credentials: Credentials, user: str) -> Sequence[Mapping[str, Any]]:
    """Returns the newest conflicts between the mesh and the shop's site, as the API lists them.

    Args:
        credentials: of scope admin.
        user: only those of this person; empty for all.

    Raises:
        CommandFailed: the mesh does not answer, or refuses the call.
    """
    query = f"?{urlencode({'user_id': user})}" if user else ""
    return (await _call(credentials, f"/api/v1/conflicts{query}")).get("conflicts", [])


def print_destinations(console: Console, destinations: Sequence[Mapping[str, Any]]) -> None:
    """Prints a table of destinations with their books."""
    table = Table(
        "destination", "kind", "state", *(field.replace("_", " ") for field in _BOOKS), "waits since", box=SIMPLE, show_edge=False
    )
    for each in destinations:
        books = each.get("books", {})
        counts = (books.get(field, "0") for field in _BOOKS)
        table.add_row(each["name"], each["kind"], state_of(each), *counts, books.get("oldest_pending_at", ""))
    console.print(table if destinations else "no destination is configured: docs/destinations.md")


def print_dead_letters(console: Console, deliveries: Sequence[Mapping[str, Any]]) -> None:
    """Prints a table of dead letters."""
    table = Table("id", "what", "happened at", "given up at", "attempts", "why", box=SIMPLE, show_edge=False)
    for each in deliveries:
        table.add_row(each["id"], each["name"], each["happened_at"], each["at"], str(each.get("attempts", 0)), each.get("detail", ""))
    console.print(table if deliveries else "no dead letters")


def print_conflicts(console: Console, found: Sequence[Mapping[str, Any]]) -> None:
    """Prints a table of conflicts."""
    table = Table("decided at", "person", "field", "site", "mesh", "kept", box=SIMPLE, show_edge=False)
    for each in found:
        conflict = each["conflict"]
        values = (conflict.get("site_value", ""), conflict.get("mesh_value", ""), conflict["kept"])
        table.add_row(conflict["decided_at"], each["subject"], conflict["field"], *values)
    console.print(table if found else "no conflicts")


def is_paused(destination: Mapping[str, Any]) -> bool:
    """Whether a destination that is configured is sent nothing until an operator resumes it."""
    return bool(destination.get("is_configured") and destination.get("is_paused"))


def state_of(destination: Mapping[str, Any]) -> str:
    """Returns the state of a destination in words."""
    if not destination.get("is_configured"):
        return "not configured"
    if is_paused(destination):
        return f"paused: {destination.get('pause_reason', '')}"
    return f"left alone until {destination['open_until']}" if destination.get("open_until") else "sending"


async def _call(caller: Caller, path: str, body: Mapping[str, object] | None = None) -> Mapping[str, Any]:
    if isinstance(caller, MeshSettings):
        return await call_service(caller, "destinations", "GET" if body is None else "POST", path)
    async with connect() as client:
        answer = await call(client, caller, path, body=body, patience=_PATIENCE_SECONDS)
    if answer.response.is_error:
        message = answer.response.json().get("message") or answer.response.text.strip()
        raise CommandFailed(f"{answer.response.status_code} {message}")
    return answer.response.json()
