"""The kind `email`: what the owner is sent, as a message to one or more addresses."""

from __future__ import annotations

from collections.abc import Sequence
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import Annotated, ClassVar, Final
from urllib.parse import unquote, urlsplit

import aiosmtplib
from pydantic import Field, SecretStr, StringConstraints
from typing_extensions import override

from services.destinations.configuration import named_secret
from services.destinations.kind import Outcome, Outgoing, Result
from services.destinations.owner.kind import OwnerDestination
from services.destinations.owner.wishes import OwnerOptions, rendered

_SECONDS: Final = 20.0
_PERMANENT: Final = 500
_SCHEMES: Final = {"smtp": 587, "smtps": 465}
_Address = Annotated[str, StringConstraints(pattern=r"^[^\s@<>,;]+@[^\s@<>,;]+$", max_length=254)]


def _is_server(secret: str) -> None:
    url = urlsplit(secret)
    if url.scheme not in _SCHEMES or not url.hostname:
        message = "is no address of a server: smtp://user:password@host:587, or smtps:// for TLS from the start"
        raise ValueError(message)


class EmailOptions(OwnerOptions):
    """How a destination of the kind `email` is configured."""

    server: Annotated[SecretStr, named_secret(_is_server)]
    """The environment variable with the address of the server: `smtp://user:password@host:587`, or `smtps://` for TLS from the start."""
    sender: _Address
    """The address that messages come from."""
    to: Annotated[Sequence[_Address], Field(min_length=1, max_length=20)]
    """The addresses that they are sent to."""


class EmailDestination(OwnerDestination[EmailOptions]):
    """Messages to the owner. A repetition has the same `Message-ID`, by which many mailboxes recognise it.

    A password is sent over TLS only; without one, TLS is used where the server offers it.
    """

    options_type: ClassVar[type[EmailOptions]] = EmailOptions

    @override
    async def send(self, deliveries: Sequence[Outgoing]) -> Sequence[Result]:
        (delivery,) = deliveries
        message = self._message(delivery)
        try:
            async with self._server() as server:
                refused, _ = await server.send_message(message, sender=self.options.sender, recipients=list(self.options.to))
        except (aiosmtplib.SMTPException, OSError) as error:
            return [_result(error)]
        return [Result(Outcome.DELIVERED, f"refused for {len(refused)} of {len(self.options.to)} addresses" if refused else "accepted")]

    @override
    async def test(self) -> Result:
        try:
            async with self._server() as server:
                await server.noop()
        except (aiosmtplib.SMTPException, OSError) as error:
            return _result(error)
        return Result(Outcome.DELIVERED, "the server answers")

    def _server(self) -> aiosmtplib.SMTP:
        url = urlsplit(self.options.server.get_secret_value())
        return aiosmtplib.SMTP(
            hostname=url.hostname,
            port=url.port or _SCHEMES[url.scheme],
            username=unquote(url.username) if url.username else None,
            password=unquote(url.password) if url.password else None,
            use_tls=url.scheme == "smtps",
            start_tls=None if url.scheme == "smtps" or not url.username else True,
            timeout=_SECONDS,
        )

    def _message(self, delivery: Outgoing) -> EmailMessage:
        content = rendered(self.options, delivery.message)
        message = EmailMessage(policy=SMTP)
        message["From"], message["To"] = self.options.sender, ", ".join(self.options.to)
        message["Subject"] = content.subject
        message["Date"] = format_datetime(delivery.wanted.not_before or delivery.wanted.at)
        message["Message-ID"] = f"<{delivery.id}@{self.options.sender.rpartition('@')[2]}>"
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(content.text)
        message.add_alternative(content.html, subtype="html")
        return message


def _result(error: Exception) -> Result:
    """Returns what an error means. The server's own words may contain addresses, so they are left out."""
    if isinstance(error, aiosmtplib.SMTPAuthenticationError):
        return Result(Outcome.UNAUTHORIZED, f"the server does not accept the user or the password: {error.code}")
    if isinstance(error, aiosmtplib.SMTPRecipientsRefused):
        codes = [each.code for each in error.recipients]
        return Result(Outcome.REJECTED if min(codes) >= _PERMANENT else Outcome.RETRY, f"every address is refused: {min(codes)}")
    if isinstance(error, aiosmtplib.SMTPConnectError):
        return Result(Outcome.RETRY, "the server can't be reached")
    if isinstance(error, aiosmtplib.SMTPResponseException):
        return Result(Outcome.REJECTED if error.code >= _PERMANENT else Outcome.RETRY, f"the server answers {error.code}")
    return Result(Outcome.RETRY, type(error).__name__, is_ambiguous=True)


KIND = EmailDestination
