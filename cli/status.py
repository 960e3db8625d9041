"""`pmp status`: the processes of a mesh and whether each is ready now."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path

from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from cli.disk import Disk
from cli.readiness import gateway_ready, redis_ready, service_ready
from cli.state import MeshState, ProcessState


class ProcessStatus(BaseModel):
    """The current status of a process."""

    name: str
    """Its name."""
    pid: int | None
    """Its process id; None while it is down."""
    address: str
    """Address of its readiness check."""
    ready: bool
    """Whether it is ready."""
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


async def ask(mesh: MeshState) -> Status:
    """Checks every process of the mesh."""
    answers = await asyncio.gather(*(_ready(mesh, process) for process in mesh.processes))
    processes = [
        ProcessStatus(name=process.name, pid=process.pid, address=process.address, ready=ready, restarts=process.restarts)
        for process, ready in zip(mesh.processes, answers, strict=True)
    ]
    ready = all(answers) and not (mesh.disk and mesh.disk.is_low())
    return Status(url=mesh.url, ready=ready, disk=_disk(mesh.disk) if mesh.disk else None, processes=processes)


def print_status(console: Console, status: Status) -> None:
    """Prints a table of the processes."""
    table = Table("process", "pid", "address", "state", "restarts")
    for process in status.processes:
        state = "[green]ready[/]" if process.ready else "[red]not ready[/]" if process.pid else "[red]down[/]"
        table.add_row(process.name, str(process.pid or ""), process.address, state, str(process.restarts))
    console.print(table)
    if status.disk is not None:
        low = status.disk.free_bytes < status.disk.least_bytes
        console.print(status.disk.description, style="red" if low else None, highlight=False, soft_wrap=True)


def _disk(disk: Disk) -> DiskStatus:
    return DiskStatus(folder=disk.folder, free_bytes=disk.free_bytes(), least_bytes=disk.least_bytes, description=disk.describe())


def _ready(mesh: MeshState, process: ProcessState) -> Awaitable[bool]:
    match process.kind:
        case "redis":
            return redis_ready(mesh.redis_url)
        case "gateway":
            return gateway_ready(mesh.url)
        case "service" | "worker":
            return service_ready(process.address)
