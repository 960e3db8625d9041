"""The certificates by which processes of the mesh know each other (mTLS), read again when they change."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from kit.credentials.files import AUTHORITY, CERTIFICATE, PRIVATE_KEY, Followed
from kit.settings import WrongSetting


@dataclass(frozen=True, slots=True)
class _Identity:
    certificate: bytes
    private_key: bytes
    authority: bytes


class Certificates:
    """The certificate of a process, and the authority that has issued those of its peers.

    Args:
        folder: has `tls.crt`, `tls.key` and `ca.crt`, as cert-manager writes them.

    Raises:
        WrongSetting: a file is missing or holds something else, or the key is not the certificate's.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        files = [folder / name for name in (CERTIFICATE, PRIVATE_KEY, AUTHORITY)]
        try:
            self._identity = Followed(files, self._read)
            self._context = Followed(files, self._new_context)
        except (OSError, ValueError) as error:
            message = f"PMP_CERTIFICATES: {error}"
            raise WrongSetting(message) from None

    def of_channel(self) -> grpc.ChannelCredentials:
        """Credentials of a new channel to a service."""
        identity = self._identity.value()
        return grpc.ssl_channel_credentials(identity.authority, identity.private_key, identity.certificate)

    def of_server(self) -> grpc.ServerCredentials:
        """Credentials of a gRPC server, which serves each new connection by the newest certificate, and requires one of its callers."""
        served = self._identity.value()

        def newer() -> Any:  # the stubs don't know that None is for no change
            nonlocal served
            if (newest := self._identity.value()) is served:
                return None
            served = newest
            return _configuration(newest)

        return grpc.dynamic_ssl_server_credentials(_configuration(served), newer, require_client_authentication=True)

    def of_listener(self) -> ssl.SSLContext:
        """The same for a server of asyncio."""

        def renew(connection: Any, _name: str | None, _context: ssl.SSLContext) -> None:
            connection.context = self._context.value()

        context = self._new_context()
        # It is called at each handshake, also of clients that name no server.
        context.sni_callback = renew
        return context

    def _read(self) -> _Identity:
        certificate, private_key, authority = ((self._folder / name).read_bytes() for name in (CERTIFICATE, PRIVATE_KEY, AUTHORITY))
        try:
            key = load_pem_private_key(private_key, password=None)
            is_own = x509.load_pem_x509_certificate(certificate).public_key() == key.public_key()
            x509.load_pem_x509_certificates(authority)
        except (TypeError, UnsupportedAlgorithm) as error:
            # A TypeError is for a key that has a password.
            raise ValueError(str(error)) from error
        if not is_own:
            message = f"{PRIVATE_KEY} is not the key of {CERTIFICATE}"
            raise ValueError(message)
        return _Identity(certificate, private_key, authority)

    def _new_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # Without a password, one would be asked for on the terminal where a key has one.
        context.load_cert_chain(self._folder / CERTIFICATE, self._folder / PRIVATE_KEY, password="")
        context.load_verify_locations(self._folder / AUTHORITY)
        context.verify_mode = ssl.CERT_REQUIRED
        return context


@cache
def certificates_in(folder: Path) -> Certificates:
    """The certificates in a folder: the same object for all who ask, so that a half-written change concerns nobody."""
    return Certificates(folder)


def _configuration(identity: _Identity) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(identity.private_key, identity.certificate)], identity.authority)
