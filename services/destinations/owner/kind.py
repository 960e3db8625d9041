"""What the kinds that send the owner something have in common."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, TypeVar

import httpx
from typing_extensions import override

from services.destinations.kind import Destination, Erasure, Message, Result, Wanted
from services.destinations.owner.wishes import OwnerOptions, wanted

_Options = TypeVar("_Options", bound=OwnerOptions)


class OwnerDestination(Destination[_Options]):
    """A way to the owner. It is sent nothing about persons, and so asks for no consent and has nobody to delete."""

    most_requests: ClassVar[int] = 1

    def __init__(self, name: str, options: _Options, http: httpx.AsyncClient) -> None:
        super().__init__(name, options, http)
        self.consent = None

    @override
    def wanted(self, message: Message) -> Iterable[Wanted]:
        return wanted(self.options, message)

    @override
    async def erase(self, person: Erasure) -> Result | None:
        return None

    @override
    def is_repeatable(self, wanted: Wanted) -> bool:
        return True
