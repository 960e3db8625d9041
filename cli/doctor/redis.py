"""Examines the configuration of Redis, on which it depends whether an accepted event can be lost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

from redis.exceptions import ResponseError

from cli.doctor.findings import Finding
from cli.doctor.subject import NotExamined, Subject
from cli.embedded_redis import INTAKE_SHARE

_NEEDED: Final = {
    "appendonly": ("yes", "a restart loses the log"),
    "appendfsync": ("always", "an outage of power loses events that were answered"),
    "maxmemory-policy": ("noeviction", "entries of the log are dropped when memory is short"),
    "aof-use-rdb-preamble": ("no", "a rewritten file keeps bytes of what was trimmed and erased"),
}
"""The value that each setting needs, and what happens otherwise."""
_NEARLY: Final = 0.8
_MIB: Final = 2**20


async def configuration(subject: Subject) -> AsyncIterator[Finding]:
    """Finds settings of Redis that lose events, and too little memory."""
    redis: Any = subject.log.redis
    try:
        # Before version 7, Redis shows one setting at a time.
        shown = [await redis.config_get(name) for name in (*_NEEDED, "maxmemory")]
    except ResponseError as error:
        raise NotExamined("this Redis does not show its configuration: see its provider's console") from error
    found = {_text(name): _text(value) for each in shown for name, value in each.items()}
    for name, (needed, otherwise) in _NEEDED.items():
        if name in found and found[name] != needed:
            action = f"`redis-cli CONFIG SET {name} {needed}`, and the same in its configuration file"
            yield Finding(what=f"{name} is {found[name]} instead of {needed}: {otherwise}", action=action)
    info: dict[str, Any] = {**await redis.info("memory"), **await redis.info("persistence")}
    memory, limit, used = int(found.get("maxmemory", 0)), subject.log_max_bytes, int(info["used_memory"])
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
