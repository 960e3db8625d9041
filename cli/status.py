"""`pmp status`: the processes of a mesh and whether each is ready now."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from pathlib import Path

from pmp_mesh_client.tokens import Scope
from pydantic import BaseModel
from rich.console import Console
from rich.table import Column, Table

from cli.credentials import credentials
from cli.destinations import fetch, is_paused
from cli.disk import Disk
from cli.errors import CommandFailed
from cli.folder import DataFolder
from cli.forked import is_forking
from cli.readiness import gateway_ready, redis_ready, service_ready
from cli.state import MeshState, ProcessState, running_mesh


class RoleStatus(BaseModel):
    """The current status of a role of a service."""

    name: str
    """Its name."""
    ready: bool
    """Whether it is ready."""


class ProcessStatus(BaseModel):
    """The current status of a process."""

    name: str
    """Its name."""
    pid: int | None
    """Its process id; None while it is down, or in a pod."""
    address: str
    """Address of its readiness check."""
    ready: bool
    """Whether it is ready, with all of its roles."""
    roles: list[RoleStatus]
    """The roles of services that it runs."""
    restarts: int
    """Number of restarts after it died."""


class DiskStatus(BaseModel):
    """The current status of the log's disk."""

    folder: Path
    """A folder on it."""
    free_bytes: int
    """Free bytes."""
    least_bytes: int
    """Intake stops while less is free."""
    description: str
    """The same in words."""


class PausedDestination(BaseModel):
    """A destination that is sent nothing until an operator resumes it."""

    name: str
    """Its name."""
    reason: str
    """Why."""


class Status(BaseModel):
    """The current status of a mesh."""

    url: str
    """Address of the gateway."""
    ready: bool
    """Whether all processes are ready, and the disk has enough space."""
    disk: DiskStatus | None
    """The disk of the Redis that the mesh runs, if it runs one."""
    processes: list[ProcessStatus]
    """The processes, in starting order."""
    paused_destinations: list[PausedDestination] = []
    """Those that are paused, for which an alert asks: the mesh itself is ready without them."""


async def ask_all(folder: DataFolder) -> Status:
    """Checks every process of the mesh on this machine, and its destinations if it is ready."""
    status = await ask(running_mesh(folder))
    if not status.ready:
        return status
    with suppress(CommandFailed):
        found = await fetch(credentials(folder, Scope.READ))
        paused = [PausedDestination(name=each["name"], reason=each.get("pause_reason", "")) for each in found if is_paused(each)]
        return status.model_copy(update={"paused_destinations": paused})
    return status


async def ask(mesh: MeshState) -> Status:
    """Checks every process of the mesh."""
    processes = await asyncio.gather(*(_status(mesh, process) for process in mesh.processes))
    ready = all(process.ready for process in processes) and not (mesh.disk and mesh.disk.is_low())
    return Status(url=mesh.url, ready=ready, disk=_disk(mesh.disk) if mesh.disk else None, processes=list(processes))


def print_status(console: Console, status: Status) -> None:
    """Prints a table of the processes and their roles."""
    names, addresses = (Column(header, no_wrap=True) for header in ("process", "address"))
    table = Table(names, "roles", "pid", addresses, "state", "restarts")
    for process in status.processes:
        state = "[green]ready[/]" if process.ready else "[red]not ready[/]" if process.pid else "[red]down[/]"
        # A role alone has the name of its process.
        shown = process.roles if len(process.roles) > 1 else ()
        roles = ", ".join(role.name if role.ready else f"[red]{role.name}[/]" for role in shown)
        table.add_row(process.name, roles, str(process.pid or ""), process.address, state, str(process.restarts))
    console.print(table)
    if status.disk is not None:
        low = status.disk.free_bytes < status.disk.least_bytes
        console.print(status.disk.description, style="red" if low else None, highlight=False, soft_wrap=True)
    for each in status.paused_destinations:
        resume = f"`pmp destinations resume {each.name}` sends to it again"
        console.print(f"the destination {each.name} is paused: {each.reason}; {resume}", style="yellow", highlight=False, soft_wrap=True)


def _disk(disk: Disk) -> DiskStatus:
    return DiskStatus(folder=disk.folder, free_bytes=disk.free_bytes(), least_bytes=disk.least_bytes, description=disk.describe())


async def _status(mesh: MeshState, process: ProcessState) -> ProcessStatus:
    answers = await asyncio.gather(*(service_ready(process.address, role) for role in process.roles))
    return ProcessStatus(
        name=process.name,
        pid=process.pid,
        address=process.address,
        ready=await _ready(mesh, process) if not process.roles else all(answers),
        roles=[RoleStatus(name=role, ready=ready) for role, ready in zip(process.roles, answers, strict=True)],
        restarts=process.restarts,
    )


def _ready(mesh: MeshState, process: ProcessState) -> Awaitable[bool]:
    """Whether a process without roles is ready."""
    match process.kind:
        case "redis":
            return redis_ready(mesh.redis_url)
        case "traces":
            return service_ready(process.address)
        case "fork-server":
            return is_forking(Path(process.address))
        case _:
            return gateway_ready(mesh.url)
