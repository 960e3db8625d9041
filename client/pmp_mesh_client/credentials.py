"""The credentials of a calling system."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import grpc

Metadata: TypeAlias = tuple[tuple[str, str], ...]
"""Metadata of a call."""


class MeshCredentials(grpc.AuthMetadataPlugin):
    """What every call carries: the API key that names the calling system, and its token.

    A plugin of gRPC, too: `grpc.metadata_call_credentials(credentials)` for a channel of one's own.

    Args:
        api_key: one of the gateway's `PMP_API_KEYS`.
        token: a token, or what returns the token for each call, such as `MintedToken`.
    """

    def __init__(self, api_key: str, token: str | Callable[[], str]) -> None:
        self._api_key = api_key
        self._token = token

    def metadata(self) -> Metadata:
        """Returns the metadata of a call that is made now."""
        token = self._token if isinstance(self._token, str) else self._token()
        return (("x-api-key", self._api_key), ("authorization", f"Bearer {token}"))

    def __call__(self, context: grpc.AuthMetadataContext, callback: grpc.AuthMetadataPluginCallback) -> None:  # noqa: ARG002  (gRPC's signature)
        """Called by gRPC for each call on a channel with TLS."""
        callback(self.metadata(), None)
