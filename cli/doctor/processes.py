"""Examines the processes: whether they are ready, and of the version that is installed."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Final

import httpx

from cli.doctor.findings import Finding
from cli.doctor.subject import Local, NotExamined, Subject
from cli.layout import service_names
from cli.pod import ask_services
from cli.status import ask
from kit.telemetry.version import installed_version

_VERSION: Final = re.compile(r'^target_info\{[^}]*service_version="([^"]*)"', re.MULTILINE)
_SECONDS: Final = 5.0


async def readiness(subject: Subject) -> AsyncIterator[Finding]:
    """Finds processes that are not ready."""
    local = subject.local
    status = await (ask(local.state) if local else ask_services(subject.settings))
    for process in status.processes:
        if not process.ready:
            yield Finding(what=f"{process.name} is not ready", action=_action(process.name, local))


def _action(name: str, local: Local | None) -> str:
    if local:
        return f"`tail {local.folder.log(name)}` says why; `pmp up` restarts what dies"
    if name in service_names():
        return f"`kubectl --namespace pmp describe deployment {name}-service` and its log say why"
    return "look at the log of its server, and whether a NetworkPolicy lets this pod reach it"


async def versions(subject: Subject, installed: str | None = None) -> AsyncIterator[Finding]:
    """Finds processes of another version than the installed one."""
    if subject.local is None:
        raise NotExamined("a pod's version is its image: `kubectl --namespace pmp get pods --output wide`")
    installed = installed or installed_version()
    async with httpx.AsyncClient(timeout=_SECONDS, trust_env=False) as client:
        for process in subject.local.state.processes:
            if not process.roles or process.metrics_url is None:
                continue
            found = _VERSION.search((await client.get(process.metrics_url)).text)
            running = found[1] if found else "unknown"
            if running != installed:
                what = f"{process.name} runs version {running}, installed is {installed}"
                yield Finding(what=what, action="restart `pmp up`: the installation was changed while it was running")
