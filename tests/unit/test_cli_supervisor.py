from __future__ import annotations

import asyncio
import os
import time
from dataclasses import replace
from pathlib import Path

from cli.folder import DataFolder
from cli.layout import Processes, databases
from cli.local_secrets import Secrets
from cli.plan import Options, make_plan
from cli.ports import Ports
from cli.processes import Command
from cli.state import MeshState
from cli.supervisor import Supervisor
from kit.migrate import migrate
from kit.settings import KEYS_DATABASE
from tests.background import running


async def is_ready() -> bool:
    return True


def states(folder: DataFolder) -> dict[str, tuple[str, int]]:
    """State and restarts of each process, by its name."""
    if not folder.state.exists():
        return {}
    return {each.name: (each.state, each.restarts) for each in MeshState.model_validate_json(folder.state.read_bytes()).processes}


async def test_services_start_once_redis_has_loaded_its_data(tmp_path: Path) -> None:
    """They end without Redis, and one that holds a full log takes longer to start than they do."""
    folder = DataFolder(tmp_path)
    folder.create()
    for name in (*databases(), KEYS_DATABASE):
        await migrate(name, folder.database_url().replace("{service}", name))
    options = Options("127.0.0.1", 8080, folder.database_url(), None, Processes.SHARED)
    with Ports() as ports:
        plan = make_plan(options, folder, Secrets.generate(), ports, os.environ)
    assert plan.redis is not None
    loaded = tmp_path / "loaded"

    def started(command: Command, script: str) -> Command:
        return replace(command, argv=("sh", "-c", script, *command.argv), ready=is_ready, fork_server=None)

    slow = f'sleep 1; touch "{loaded}"; exec "$0" "$@"'
    plan = replace(
        plan,
        redis=replace(started(plan.redis, slow), ready=plan.redis.ready),
        gateway=replace(started(plan.gateway, "exec sleep 60"), before_end=None),
        fork_server=started(plan.fork_server, "exec sleep 60"),
        services=tuple(started(service, f'test -e "{loaded}" && exec sleep 60') for service in plan.services),
    )
    async with running(Supervisor(options, plan, folder).run(time.monotonic())):
        async with asyncio.timeout(30):
            while [state for state, _ in states(folder).values()] != ["ready"] * (3 + len(plan.services)):  # noqa: ASYNC110 (nobody sets an event)
                await asyncio.sleep(0.05)
        assert {restarts for _, restarts in states(folder).values()} == {0}
