"""State of a running mesh for other commands: `mesh.json` in its data folder."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ValidationError

from cli.disk import Disk
from cli.errors import CommandFailed
from cli.folder import DataFolder, in_pod, write_private

Kind = Literal["redis", "traces", "fork-server", "service", "worker", "gateway"]
State = Literal["starting", "ready", "restarting", "stopped"]


class ProcessState(BaseModel):
    """One process of the mesh."""

    name: str
    """Its name, which is also that of its log file."""
    kind: Kind
    """Kind of process, which determines its readiness check."""
    roles: list[str]
    """The roles of services that it runs."""
    address: str
    """Host and port, or socket, of its readiness check."""
    metrics_url: str | None
    """URL of its metrics for Prometheus, if it has any."""
    state: State
    """Its state as the supervisor last saw it."""
    pid: int | None = None
    """Its process id; None while it is down."""
    restarts: int = 0
    """Number of restarts after it died."""


class MeshState(BaseModel):
    """A running mesh. The file is private: the URLs may contain passwords."""

    url: str
    """Address of the gateway."""
    port: int
    """Port of the gateway."""
    supervisor_pid: int
    """Process id of `pmp up`."""
    started_at: datetime
    """When `pmp up` was called."""
    database_url: str
    """SQLAlchemy URL with `{service}` for the database's name."""
    redis_url: str
    """URL of the Redis that holds the log, credentials included."""
    log_partitions: int
    """Partitions of each topic."""
    disk: Disk | None
    """The disk of the Redis that the mesh runs, if it runs one."""
    service_addresses: dict[str, str]
    """Host and port of each service's gRPC server."""
    processes: list[ProcessState]
    """The processes, in starting order."""

    def write(self, folder: DataFolder) -> None:
        """Writes the state to the data folder."""
        write_private(folder.state, self.model_dump_json(indent=2))


def running_mesh(folder: DataFolder) -> MeshState:
    """The mesh that runs on a data folder.

    Raises:
        CommandFailed: there is none.
    """
    if in_pod(folder):
        raise CommandFailed("this is a pod: the command is for a mesh that `pmp up` runs on a data folder")
    if not folder.is_locked():
        message = f"no mesh runs on {folder.path}: run `pmp up` first, or name its folder with --data or PMP_DATA"
        raise CommandFailed(message)
    try:
        return MeshState.model_validate_json(folder.state.read_text())
    except FileNotFoundError:
        message = f"the mesh on {folder.path} is only starting: try again in a moment"
        raise CommandFailed(message) from None
    except ValidationError as error:
        message = f"{folder.state} is of another version of pmp: start `pmp up` anew"
        raise CommandFailed(message) from error
