"""Outages: errors after which the same work may succeed later, and how callers are refused because of them.

An outage is no defect. A service refuses the call, so that the caller retries; background work waits and retries, and sets no
message aside.
"""

from __future__ import annotations

import errno
import re
import sqlite3
from socket import gaierror
from typing import Final

from redis.exceptions import (
    AskError,
    BusyLoadingError,
    ClusterDownError,
    ExecAbortError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from sqlalchemy.exc import DBAPIError, InterfaceError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from kit.errors import LogFull, MeshError, Unavailable

# Server and client codes after which the same work may succeed later: lock waits, deadlocks, lost or refused connections,
# shutdown, a full disk. https://dev.mysql.com/doc/mysql-errors/8.0/en/
# fmt: off
_TRANSIENT: Final = frozenset({
    1020, 1021, 1040, 1042, 1053, 1077, 1079, 1114, 1129, 1152, 1158, 1159, 1160, 1161, 1203, 1205, 1213, 1290, 1836, 1927,
    2002, 2003, 2006, 2013, 2014, 2055, 3024, 3100, 4031,
})
# fmt: on
_TRANSIENT_SQLITE: Final = frozenset(
    {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN}
)
_PASSING: Final = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
    | {errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL}
)
"""A full or broken disk, no more files or memory, no route to the other side."""
LOG_FULL: Final = "the log is full; try again later"
_OUT_OF_MEMORY_ERRORS: Final = (OutOfMemoryError, ExecAbortError)
_NOT_WRITABLE_ERRORS: Final = (AskError, BusyLoadingError, ReadOnlyError, ClusterDownError, TryAgainError)
"""`MovedError` is an `AskError`: another node of the cluster has the key."""
_REDIS_DOWN: Final = (RedisConnectionError, RedisTimeoutError, RedisClusterException)
"""The last: none of a cluster's nodes answers, or none has the key."""
_OUT_OF_MEMORY: Final = re.compile(r"^(OOM|EXECABORT)\b|\bOOM command|used memory > 'maxmemory'")
_NOT_WRITABLE: Final = re.compile(r"^(READONLY|LOADING|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|NOREPLICAS|BUSY)\b|\bMISCONF\b")
"""Errors of Redis that its client has no class for, or that a script passes on."""


class LogFullError(Exception):
    """The log is out of memory; nothing was written."""


class LogDownError(ConnectionError):
    """The log accepts no writes now: it is starting, read-only, or its disk is full. Nothing was written."""


def in_terms_of_the_log(error: Exception) -> Exception:
    """Translates an error of Redis that refuses a write into one of the log; returns any other as it is."""
    text = str(error) if isinstance(error, ResponseError) else ""
    if isinstance(error, _NOT_WRITABLE_ERRORS) or _NOT_WRITABLE.search(text):
        return LogDownError("the log takes no writes")
    if isinstance(error, _OUT_OF_MEMORY_ERRORS) or _OUT_OF_MEMORY.search(text):
        return LogFullError("the log is full")
    return error


def is_outage(error: BaseException) -> bool:
    """Returns True for an error after which the same work may succeed later: a server it needs is down, busy or full."""
    if isinstance(error, OSError) and (isinstance(error, ConnectionError | TimeoutError | gaierror) or error.errno in _PASSING):
        return True
    if isinstance(error, (*_REDIS_DOWN, PoolTimeoutError, InterfaceError, Unavailable, LogFullError)):
        return True
    if isinstance(error, ResponseError):
        return in_terms_of_the_log(error) is not error
    return _is_of_the_database(error) or _is_closed_transport(error)


def refusal_of(error: BaseException, message: str) -> MeshError | None:
    """Returns the error with which a call is refused during an outage; None for any other error.

    Args:
        error: the reason why the call can't be answered.
        message: the message for the caller, unless the log is full.
    """
    if not is_outage(error):
        return None
    if isinstance(error, Exception) and isinstance(in_terms_of_the_log(error), LogFullError):
        return LogFull(LOG_FULL)
    return Unavailable(message)


def code_of(error: DBAPIError) -> object:
    """Returns the server's code of an error."""
    return error.orig.args[0] if error.orig and error.orig.args else None


def _is_of_the_database(error: BaseException) -> bool:
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    cause = error.orig
    if isinstance(cause, OSError) and is_outage(cause):
        return True
    primary = getattr(cause, "sqlite_errorcode", None) or getattr(getattr(cause, "__cause__", None), "sqlite_errorcode", None)
    if primary is not None:
        return primary & 0xFF in _TRANSIENT_SQLITE
    return code_of(error) in _TRANSIENT


def _is_closed_transport(error: BaseException) -> bool:
    """True when the peer closed the connection just before a write.

    uvloop then raises a RuntimeError, which neither driver makes an error of its own; asyncio's loop ignores such a write.
    """
    return isinstance(error, RuntimeError) and "the handler is closed" in str(error)
