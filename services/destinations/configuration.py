"""The configuration of destinations: a TOML file with one table for each, read once.

Secrets are not in the file: where a kind needs one, the file names an environment variable, or a file in the folder of secrets.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias

import httpx
from pydantic import AfterValidator, BeforeValidator, SecretStr, ValidationError
from standardwebhooks import Webhook

from kit.credentials.files import secret
from kit.settings import WrongSetting
from services.destinations.kind import Destination

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,49}")
_TIMEOUT: Final = httpx.Timeout(10.0, connect=5.0)
_AGENT: Final = "pmp-mesh"


def _from_environment(variable: object) -> object:
    value = secret(variable) if isinstance(variable, str) else None
    if not value:
        message = "names an environment variable, which is not set or empty"
        raise ValueError(message)
    return value


def _signs(secret: SecretStr) -> SecretStr:
    Webhook(secret.get_secret_value())
    if not secret.get_secret_value().startswith("whsec_"):
        message = "is not whsec_ and 24 to 64 bytes in base64"
        raise ValueError(message)
    return secret


Secret: TypeAlias = Annotated[SecretStr, BeforeValidator(_from_environment)]
"""A secret from the environment variable that the file names."""
SigningSecret: TypeAlias = Annotated[Secret, AfterValidator(_signs)]
"""One that signs as Standard Webhooks do: `whsec_` and 24 to 64 bytes in base64."""


def kinds() -> list[str]:
    """The names of all kinds of destination."""
    return sorted(path.parent.name for path in Path(__file__).parent.glob("*/destination.py"))


def load(path: Path | None, connected: Mapping[str, Mapping[str, Any]] | None = None) -> Mapping[str, Destination[Any]]:
    """Reads the file and opens a client for each destination.

    Args:
        path: the file; None for none.
        connected: tables of further destinations, by name. One of the file with the same name takes its place.

    Returns:
        The destinations by name.

    Raises:
        WrongSetting: the file can't be read, or a destination is configured wrongly.
    """
    tables = {**(connected or {}), **(_tables(path) if path else {})}
    return {name: _opened(name, table) for name, table in tables.items()}


def _tables(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        message = f"PMP_DESTINATIONS: {path.name} can't be read as TOML: {error}"
        raise WrongSetting(message) from None


def _opened(name: str, table: Any) -> Destination[Any]:
    known = kinds()
    kind = str(table.get("kind")) if hasattr(table, "get") else ""
    if _NAME.fullmatch(name) is None or kind not in known:
        message = f"destination {name}: a table with a name of a-z, 0-9 and -, and a kind, one of {', '.join(known)}"
        raise WrongSetting(message)
    destination: type[Destination[Any]] = import_module(f"services.destinations.{kind}.destination").KIND
    try:
        options = destination.options_type.model_validate(table)
    except ValidationError as error:
        # Never the values: a secret may stand in the wrong place.
        faults = "; ".join(f"{'.'.join(map(str, each['loc'])) or 'the table'}: {each['msg']}" for each in error.errors(include_input=False))
        message = f"destination {name}: {faults}"
        raise WrongSetting(message) from None
    return destination(name, options, httpx.AsyncClient(timeout=_TIMEOUT, follow_redirects=False, headers={"user-agent": _AGENT}))
