"""Makes all checks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import grpc.aio
import httpx
from redis.exceptions import RedisClusterException, RedisError
from sqlalchemy.exc import SQLAlchemyError

from cli.doctor import backups, certificates, clocks, databases, destinations, disk, keys, log, processes, rates, redis, schema, strength
from cli.doctor.findings import Check, Checked, Finding, Report
from cli.doctor.subject import NotExamined, Subject, examined
from cli.errors import CommandFailed
from cli.folder import DataFolder
from kit.errors import MeshError
from kit.telemetry.errors import describe

CHECKS: Final[Mapping[str, Check]] = {
    "processes": processes.readiness,
    "versions": processes.versions,
    "schema": schema.revisions,
    "books": log.books,
    "log": log.progress,
    "dead letters": log.dead_letters,
    "destinations": destinations.destinations,
    "exchange rates": rates.rates,
    "disk": disk.disk,
    "backups": backups.backups,
    "redis": redis.configuration,
    "databases": databases.configuration,
    "clocks": clocks.clocks,
    "certificates": certificates.certificates,
    "keys": keys.keys,
    "secrets": strength.secrets,
}
"""All checks, in the order of the report."""
_FAILURES: Final = (
    RedisError,
    RedisClusterException,
    SQLAlchemyError,
    OSError,
    MeshError,
    CommandFailed,
    grpc.aio.AioRpcError,
    httpx.HTTPError,
)


async def examine(folder: DataFolder) -> Report:
    """Examines the mesh on a folder or, in a pod, the one that its settings lead to.

    Raises:
        CommandFailed: there is none, or a setting is wrong.
    """
    async with examined(folder) as subject:
        checks = [await run(name, check, subject) for name, check in CHECKS.items()]
    return Report(is_well=not any(each.findings for each in checks), checks=checks)


async def run(name: str, check: Check, subject: Subject) -> Checked:
    """Makes one check. What keeps it from being made, such as a server that does not answer, is a finding."""
    findings: list[Finding] = []
    left_out = ""
    try:
        async for finding in check(subject):
            findings.append(finding)  # noqa: PERF401  (those before a failure count)
    except NotExamined as reason:
        left_out = str(reason)
    except _FAILURES as error:
        findings.append(Finding(what=f"not all could be examined: {_reason(error)}", action="see with `pmp status` what does not answer"))
    return Checked(check=name, findings=findings, left_out=left_out)


def _reason(error: BaseException) -> str:
    if isinstance(error, CommandFailed):
        return str(error)
    return f"{error.code().name} {error.details()}" if isinstance(error, grpc.aio.AioRpcError) else describe(error)
