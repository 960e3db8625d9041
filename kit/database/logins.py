"""How connections to a database server log in: by what its URL says at that moment."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from typing import Any, Final

from sqlalchemy import event, make_url
from sqlalchemy.ext.asyncio import AsyncEngine

_ACCOUNT: Final = ("user", "password")


def log_in_by(engine: AsyncEngine, url: Callable[[], str]) -> None:
    """Makes new connections of an engine log in by the account and the certificates that a URL names when they are made.

    `ssl_ca`, `ssl_cert` and `ssl_key` in its query name files in PEM, which are read for each connection.
    """
    dialect = engine.sync_engine.dialect

    @event.listens_for(engine.sync_engine, "do_connect")
    def log_in(_dialect: object, _record: object, _arguments: object, parameters: dict[str, Any]) -> None:
        _, named = dialect.create_connect_args(make_url(url()))
        for name in _ACCOUNT:
            parameters.pop(name, None)
        parameters.update({name: named[name] for name in _ACCOUNT if name in named})
        if "ssl" in named:
            parameters["ssl"] = _context(named["ssl"])

    _ = log_in


def _context(files: Mapping[str, Any]) -> ssl.SSLContext:
    """What the driver wants instead of the names of files."""
    context = ssl.create_default_context(cafile=files.get("ca"))
    context.check_hostname = files.get("check_hostname", True)
    if "cert" in files:
        context.load_cert_chain(files["cert"], files.get("key"))
    return context
