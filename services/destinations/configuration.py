"""The configuration of destinations: a TOML file with one table for each, read once.

Secrets are not in the file: where a kind needs one, the file names an environment variable, or a file in the folder of secrets, which
is followed: whoever uses a secret asks for it each time.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias

from pydantic import PlainValidator, SecretStr, ValidationError
from typing_extensions import override

from kit.credentials.files import Followed, read, secret, secret_file
from kit.credentials.signing import SigningSecrets
from kit.settings import WrongSetting
from services.destinations.kind import Destination

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,49}")


class _NamedSecret(SecretStr):
    """What a variable, or else a file of the folder of secrets, says at this moment."""

    def __init__(self, variable: str, check: Callable[[str], object]) -> None:
        def checked(text: str) -> str:
            if not text:
                message = "names an environment variable, which is not set or empty"
                raise ValueError(message)
            check(text)
            return text

        super().__init__(checked(secret(variable)))
        file = secret_file(variable)
        self._followed = Followed([file], lambda: checked(read(file))) if file else None

    @override
    def get_secret_value(self) -> str:
        return self._followed.value() if self._followed else super().get_secret_value()


def named_secret(check: Callable[[str], object] = str) -> PlainValidator:
    """Turns the name of a secret into the secret, which is the newest one whenever it is asked for.

    Args:
        check: raises ValueError for one of no use, by default for none. It is refused at the start; later, the one before stays.
    """
    return PlainValidator(lambda variable: _NamedSecret(variable if isinstance(variable, str) else "", check))


Secret: TypeAlias = Annotated[SecretStr, named_secret()]
"""A secret from the environment variable that the file names."""
SigningSecret: TypeAlias = Annotated[SecretStr, named_secret(SigningSecrets)]
"""One that signs, or two while they rotate (`SigningSecrets`)."""


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
    return {name: opened(name, table) for name, table in tables.items()}


def _tables(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        message = f"PMP_DESTINATIONS: {path.name} can't be read as TOML: {error}"
        raise WrongSetting(message) from None


def opened(name: str, table: Any) -> Destination[Any]:
    """Opens a client for a destination.

    Args:
        name: of the destination.
        table: its configuration.

    Raises:
        WrongSetting: it is configured wrongly.
    """
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
    # Who has no destination does without the time and memory that its import takes.
    from services.destinations.http_client import open_client  # noqa: PLC0415

    return destination(name, options, open_client())
