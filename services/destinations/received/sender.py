"""A system that sends webhooks. Pure, except that a sender may have to fetch what it verifies signatures with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError

from services.destinations.received.settings import WebhookSettings
from services.destinations.received.statement import Nothing, Statement, Unreadable

_Model = TypeVar("_Model", bound=BaseModel)


class Sender(ABC):
    """Verifies and reads the webhooks of one system.

    Args:
        settings: the secrets and the shop's hosts.
    """

    def __init__(self, settings: WebhookSettings) -> None:
        self.settings = settings

    @property
    @abstractmethod
    def is_configured(self) -> bool:
        """The settings have what its signatures are verified with."""

    @abstractmethod
    async def verify(self, headers: Mapping[str, str], body: bytes, now: datetime) -> None:
        """Checks the signature.

        Args:
            headers: in lower case.
            body: as it was sent.
            now: the time of arrival.

        Raises:
            Unauthenticated: the signature is missing, too old or wrong.
            Unavailable: it can't be verified now.
        """

    @abstractmethod
    def read(self, headers: Mapping[str, str], body: bytes, now: datetime) -> Statement | Sequence[Statement] | Nothing:
        """Reads a webhook whose signature was verified, and which may state several things.

        Args:
            headers: in lower case.
            body: as it was sent.
            now: the time of arrival.

        Raises:
            Unreadable: it is not what the sender documents.
        """

    def is_test_call(self, headers: Mapping[str, str], body: bytes) -> bool:  # noqa: ARG002 (for those that do make such calls)
        """True for an unsigned call by which the sender tests the address: it is answered, and nothing else."""
        return False


def webhook_senders(settings: WebhookSettings) -> Mapping[str, Sender]:
    """All senders, configured or not, by their names: those of the modules in `senders`."""
    names = sorted(path.stem for path in (Path(__file__).parent / "senders").glob("[a-z]*.py"))
    return {name: import_module(f"services.destinations.received.senders.{name}").SENDER(settings) for name in names}


def parsed(model: type[_Model], content: bytes | Mapping[str, Any]) -> _Model:
    """Reads a JSON object, or a part of one.

    Raises:
        Unreadable: it is no JSON, or a field is missing or of another type.
    """
    try:
        return model.model_validate(orjson.loads(content) if isinstance(content, bytes) else content)
    except orjson.JSONDecodeError:
        raise Unreadable("the body is not JSON in UTF-8") from None
    except ValidationError as error:
        fields = sorted({".".join(map(str, each["loc"])) for each in error.errors(include_input=False, include_url=False)})
        raise Unreadable(f"these fields are missing or of another type: {', '.join(fields)}") from None
