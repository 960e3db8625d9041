"""Runs each compose file, kills and stops its containers under load, and checks that what was answered is there once.

Meant to be run by `tests/smoke/run`: in a network and namespaces of its own, with the images built.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import signal
import ssl
import subprocess
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx
import yaml

from cli.books import fetch_books
from cli.credentials import Credentials, Scope, credentials
from cli.folder import DataFolder
from kit.credentials.files import AUTHORITY
from tests.authority import Authority
from tests.e2e.event_load import load
from tests.servers import until
from tests.smoke.engine import CHECKOUT, FOLDER, Engine, running, say

RATE: Final = 200
"""Events a second while something breaks."""
MESH_USER: Final = 10001
"""Of the images."""
OPEN_FILES: Final = 65536
"""Of a server."""
DEPLOY: Final = CHECKOUT / "deploy"
DEVELOPMENT: Final = ("mysql", "redis", "migrate", "mesh", "gateway", "prometheus")
"""Services of compose.yaml without those whose images have no stand-in."""


@dataclass
class Deployment:
    """Containers of a compose file."""

    engine: Engine
    """What runs them."""
    name: str
    """Its file's."""
    url: str
    """Of its gateway."""
    issued: Callable[[Scope, str | None], Credentials]
    """Credentials of a caller."""
    services: tuple[str, ...] = ()
    """Those that run; all, unless named."""
    more: tuple[str, ...] = ()
    """Further files."""
    answered: int = field(default=0, init=False)
    """Events that were answered so far."""

    def compose(self, *arguments: str) -> str:
        """Runs docker compose."""
        files = [word for name in (self.name, *self.more) for word in ("--file", str(DEPLOY / name))]
        return self.engine.docker("compose", "--progress", "quiet", *files, *arguments)

    def up(self, *options: str) -> str:
        """Starts what does not run, and waits until it is healthy."""
        start = time.monotonic()
        self.compose("up", "--no-build", "--detach", "--wait", *options, *self.services)
        return f"healthy after {time.monotonic() - start:.1f} s"

    def credentials(self, scope: str, user: str = "") -> Mapping[str, str]:
        """Headers of a caller."""
        return self.issued(Scope(scope), user or None).headers()

    def survive(self, trouble: str, cause: Callable[[], str]) -> None:
        """Sends events while something happens; afterwards each that was answered is stored once."""
        label = f"{self.name}-{self.answered}"
        said: list[str] = []
        start = time.monotonic()
        ids = asyncio.run(load(self, label, during=lambda: said.append(cause()), rate=RATE))
        seconds = time.monotonic() - start
        self.answered += len(set(ids))
        self.check()
        say(f"{self.name}: {trouble} ({said[0]}): {len(ids)} events in {seconds:.1f} s, each is stored once")

    def check(self) -> None:
        """Compares the books with what was answered."""

        def total() -> Mapping[str, int]:
            books = asyncio.run(fetch_books(self.issued(Scope.READ, None)))
            return {**books.total.model_dump(), "balanced": books.balanced}

        until(lambda: total()["pending"] == 0, 60)
        books = total()
        assert books["balanced"], books
        assert books["stored"] == self.answered, (self.answered, books)
        assert books["received"] == books["stored"] + books["duplicate"], books

    def container(self, service: str) -> str:
        """Name of a service's container."""
        return f"pmp-{service}-1"

    def inspect(self, service: str, what: str) -> str:
        """A fact of a service's container, as a template of docker inspect."""
        return self.engine.docker("inspect", "--format", what, self.container(service)).strip()

    def crash(self, service: str) -> str:
        """Kills a container's process; the engine starts it again."""
        start, before = time.monotonic(), self.inspect(service, "{{.State.StartedAt}}")
        os.kill(int(self.inspect(service, "{{.State.Pid}}")), signal.SIGKILL)
        until(lambda: self.inspect(service, "{{.State.StartedAt}}") != before, 60)
        return self.healthy(service, start)

    def kill(self, service: str) -> str:
        """Kills a container by the engine, which then leaves it to be started."""
        start = time.monotonic()
        self.engine.docker("kill", self.container(service))
        self.engine.docker("start", self.container(service))
        return self.healthy(service, start)

    def stop(self, service: str) -> str:
        """Stops a container, which drains, and starts it again."""
        start = time.monotonic()
        self.engine.docker("stop", self.container(service))
        stopped, code = time.monotonic() - start, self.inspect(service, "{{.State.ExitCode}}")
        assert code == "0", f"{service} was stopped after {stopped:.1f} s with status {code}"
        self.engine.docker("start", self.container(service))
        return f"drained in {stopped:.1f} s, {self.healthy(service, start)}"

    def healthy(self, service: str, start: float) -> str:
        """Waits until a container is healthy."""
        until(lambda: self.inspect(service, "{{.State.Health.Status}}") == "healthy", 300)
        return f"healthy after {time.monotonic() - start:.1f} s"

    @contextmanager
    def removed_afterwards(self) -> Generator[None]:
        """Keeps the containers' logs, and removes them and their volumes."""
        try:
            yield
        finally:
            (FOLDER / f"{self.name}.log").write_text(self.compose("logs", "--no-color"))
            self.compose("down", "--volumes", "--timeout", "0")


def server(engine: Engine) -> None:
    """A shop's own server: compose.production.yaml, then with TLS."""

    def issued(scope: Scope, user: str | None) -> Credentials:
        words = ["pmp", "credentials", "--format", "json", "--scope", scope, *(["--user", user] if user else [])]
        return Credentials(**json.loads(shop.compose("exec", "mesh", *words)) | {"url": shop.url})

    shop = Deployment(engine, "compose.production.yaml", "http://127.0.0.1:8080", issued, more=allowed_files(engine))
    with shop.removed_afterwards():
        say(f"{shop.name}: {shop.up()}")
        shop.survive("its process killed", lambda: shop.crash("mesh"))
        shop.survive("docker kill", lambda: shop.kill("mesh"))
        shop.survive("docker stop", lambda: shop.stop("mesh"))
        shop.survive("made anew, as by an upgrade", lambda: shop.up("--force-recreate"))
        shop.compose("exec", "mesh", "pmp", "status")
        shop.compose("exec", "mesh", "pmp", "backup")
        say(f"{shop.name}: pmp status and pmp backup succeed; {rows_of_server(shop)} rows of events")

        authority = DEPLOY / "tls" / AUTHORITY
        Authority().issue(engine.path(DEPLOY / "tls"))
        for path in engine.path(DEPLOY / "tls").iterdir():
            os.chown(path, MESH_USER, MESH_USER)
        shop.more += ("compose.tls.yaml",)
        up = shop.up()
        context = ssl.create_default_context(cafile=engine.path(authority))
        answer = httpx.get("https://localhost/healthz", verify=context)
        assert answer.is_success, answer
        say(f"{shop.name} with compose.tls.yaml: {up}, {answer.status_code} over TLS")


def allowed_files(engine: Engine) -> tuple[str, ...]:
    """A compose file that asks for fewer open files, on a machine where root may not have those of the server."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
    except ValueError:
        say(f"this machine allows {most} open files: less than the server's")
        engine.path(DEPLOY / "limits.yaml").write_text(yaml.safe_dump({"services": {"mesh": {"ulimits": {"nofile": most}}}}))
        return ("limits.yaml",)
    return ()


def rows_of_server(shop: Deployment) -> int:
    """The events in the database of a server: as many as were answered."""
    program = "import sqlite3; print(*sqlite3.connect('/var/lib/pmp/ingestion.db').execute('select count(*) from events').fetchone())"
    rows = int(shop.compose("exec", "mesh", "python", "-c", program))
    assert rows == shop.answered, (rows, shop.answered)
    return rows


def development(engine: Engine) -> None:
    """Everything for development: compose.yaml."""
    engine.run(DEPLOY / "compose" / "secrets.sh")
    secrets = dict(line.split("=", 1) for line in engine.path(DEPLOY / ".env").read_text().splitlines())

    def issued(scope: Scope, user: str | None) -> Credentials:
        return credentials(DataFolder(Path("none")), scope, user, {**secrets, "PMP_URL": mesh.url})

    mesh = Deployment(engine, "compose.yaml", "http://127.0.0.1:3000", issued, services=DEVELOPMENT)
    with mesh.removed_afterwards():
        left_out = {*mesh.compose("config", "--services").split()} - {*DEVELOPMENT}
        say(f"{mesh.name} without {', '.join(sorted(left_out))}, whose images have no stand-in: {mesh.up()}")
        for service in ("mesh", "gateway", "redis", "mysql"):
            mesh.survive(f"the process of {service} killed", lambda service=service: mesh.crash(service))
        for service in ("mesh", "gateway"):
            mesh.survive(f"docker stop {service}", lambda service=service: mesh.stop(service))
        mesh.compose("exec", "mesh", "pmp", "status")
        mesh.compose("exec", "mesh", "pmp", "books")
        query = ["mysql", "--user=mesh", f"--password={secrets['MESH_PASSWORD']}", "--skip-column-names", "--execute"]
        rows = int(mesh.compose("exec", "mysql", *query, "select count(*) from ingestion.events"))
        assert rows == mesh.answered, (rows, mesh.answered)
        say(f"{mesh.name}: pmp status and pmp books succeed; {rows} rows of events")
        until(lambda: watched() == {"mesh", "gateway"}, 60)
        say(f"{mesh.name}: Prometheus scrapes both")


def watched() -> set[str]:
    """The workloads that Prometheus scrapes."""
    answer = httpx.get("http://127.0.0.1:9090/api/v1/query", params={"query": "up == 1"}).json()
    return {each["metric"]["workload"] for each in answer["data"]["result"]}


def main() -> None:
    """Runs both, in a network of this process alone."""
    subprocess.run([shutil.which("ip") or "ip", "link", "set", "lo", "up"], check=True)
    with running() as engine:
        server(engine)
        development(engine)
    say("all as it should be")


if __name__ == "__main__":
    main()
