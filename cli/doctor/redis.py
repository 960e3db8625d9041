"""Examines the configuration of Redis, of each shard of a cluster, on which it depends whether an accepted event can be lost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

from redis.exceptions import ResponseError

from cli.doctor.findings import Finding
from cli.doctor.subject import NotExamined, Subject
from cli.embedded_redis import INTAKE_SHARE
from kit.credentials.urls import is_redis_cluster

_NEEDED: Final = {
    "appendonly": ("yes", "a restart loses the log"),
    "appendfsync": ("always", "an outage of power loses events that were answered"),
    "maxmemory-policy": ("noeviction", "entries of the log are dropped when memory is short"),
    "aof-use-rdb-preamble": ("no", "a rewritten file keeps bytes of what was trimmed and erased"),
}
"""The value that each setting needs, and what happens otherwise."""
_COVERAGE: Final = "cluster-require-full-coverage"
_NEARLY: Final = 0.8
_MIB: Final = 2**20


async def configuration(subject: Subject) -> AsyncIterator[Finding]:
    """Finds settings of Redis that lose events, and too little memory."""
    shards = await subject.log.instances()
    for number, redis in enumerate(shards, 1):
        async for finding in _of_one(redis, subject.log_max_bytes, in_cluster=is_redis_cluster(subject.redis_url)):
            yield finding.model_copy(update={"what": f"shard {number}: {finding.what}"}) if len(shards) > 1 else finding


async def _of_one(redis: Any, limit: int, *, in_cluster: bool) -> AsyncIterator[Finding]:
    try:
        # Before version 7, Redis shows one setting at a time.
        shown = [await redis.config_get(name) for name in (*_NEEDED, "maxmemory", *([_COVERAGE] if in_cluster else []))]
    except ResponseError as error:
        raise NotExamined("this Redis does not show its configuration: see its provider's console") from error
    found = {_text(name): _text(value) for each in shown for name, value in each.items()}
    if found.get(_COVERAGE) == "yes":
        what = f"{_COVERAGE} is yes: while one shard is down, the others refuse events as well"
        yield Finding(what=what, action=f"`redis-cli CONFIG SET {_COVERAGE} no`, and the same in its configuration file")
    if not in_cluster and (await redis.info("cluster")).get("cluster_enabled"):
        yield Finding(what="this Redis is a node of a cluster, and has only some of the partitions", action="name it as `redis+cluster://`")
    for name, (needed, otherwise) in _NEEDED.items():
        if name in found and found[name] != needed:
            action = f"`redis-cli CONFIG SET {name} {needed}`, and the same in its configuration file"
            yield Finding(what=f"{name} is {found[name]} instead of {needed}: {otherwise}", action=action)
    info: dict[str, Any] = {**await redis.info("memory"), **await redis.info("persistence")}
    memory, used = int(found.get("maxmemory", 0)), int(info["used_memory"])
    if not memory:
        yield Finding(what="maxmemory is not set: Redis may take all memory of its machine", action="set it to what the machine can spare")
    elif limit > INTAKE_SHARE * memory:
        what = f"PMP_LOG_MAX_BYTES is more than {INTAKE_SHARE:.0%} of maxmemory ({memory / _MIB:,.0f} MiB): a full log can't drain"
        yield Finding(what=what, action=f"set PMP_LOG_MAX_BYTES to at most {int(INTAKE_SHARE * memory)}, or raise maxmemory")
    if used > _NEARLY * limit:
        what = f"Redis holds {used / _MIB:,.0f} MiB, and intake stops at {limit / _MIB:,.0f} MiB"
        yield Finding(what=what, action="find what does not go on reading: the check of the log, or `pmp_log_lag`")
    if info.get("aof_last_write_status", "ok") != "ok":
        yield Finding(what="Redis could not write its file the last time", action="free space on its disk, and see its log")


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
