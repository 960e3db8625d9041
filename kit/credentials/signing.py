"""Secrets that sign the mesh's own calls of other systems, as Standard Webhooks specifies (https://www.standardwebhooks.com)."""

from __future__ import annotations

from datetime import datetime
from re import fullmatch
from typing import Final

from standardwebhooks import Webhook

SITE_SECRET: Final = "PMP_SITE_ERASURE_SECRET"  # noqa: S105 (the name of a variable)
"""The variable with the secrets that sign the mesh's calls of the shop's site."""
_MOST: Final = 2


class SigningSecrets:
    """One secret, or two with a comma between them, each of which signs, while the receiver replaces one by the other.

    Args:
        text: `whsec_` and 24 to 64 bytes in base64 each.

    Raises:
        ValueError: it is something else. Nothing of it is repeated.
    """

    def __init__(self, text: str) -> None:
        secrets = text.split(",")
        if len(secrets) > _MOST or not all(fullmatch(r"whsec_[A-Za-z0-9+/]{32,88}={0,2}", each) for each in secrets):
            message = "is not whsec_ and 24 to 64 bytes in base64, or two such with a comma between them while they rotate"
            raise ValueError(message)
        self._signers = [Webhook(each) for each in secrets]

    def signature(self, id_: str, at: datetime, body: bytes) -> str:
        """The header `webhook-signature` of a call.

        Args:
            id_: its header `webhook-id`.
            at: the time in its header `webhook-timestamp`.
            body: in UTF-8.
        """
        return " ".join(each.sign(id_, at, body.decode()) for each in self._signers)
