"""An object store as S3 is one, over HTTP on loopback."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import httpx
from typing_extensions import override

from tests.servers import PrivateServer

_BUCKET = "lake"
_NAMES = {"s3": "http://s3.amazonaws.com/doc/2006-03-01/"}


class ObjectStore(PrivateServer):
    """A store with one bucket, and in it one folder that is written to."""

    program = "moto"
    folder_name = "shop"
    environment = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_EC2_METADATA_DISABLED": "true"}  # noqa: RUF012

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30)

    @property
    def url(self) -> str:
        """The folder, as pyarrow names it."""
        return f"s3://{_BUCKET}/{self.folder_name}?scheme=http&endpoint_override=127.0.0.1:{self.port}&region=eu-central-1"

    @override
    def command(self) -> list[str]:
        program = f"from moto.server import main; main(['-H', '127.0.0.1', '-p', '{self.port}'])"
        return [sys.executable, "-c", program]

    @override
    def ping(self) -> None:
        self._http.put(f"/{_BUCKET}").raise_for_status()

    def files(self) -> dict[str, bytes]:
        """The contents of all objects in the folder, by their names in it."""
        listed = ET.fromstring(self._http.get(f"/{_BUCKET}", params={"list-type": "2"}).content)  # noqa: S314 (our own server's)
        keys = [str(key.text) for key in listed.iterfind("s3:Contents/s3:Key", _NAMES)]
        assert all(key.startswith(f"{self.folder_name}/") for key in keys)
        return {key.partition("/")[2]: self._http.get(f"/{_BUCKET}/{key}").content for key in keys}

    @override
    def kill(self, number: int = 15) -> None:
        self._http.close()
        super().kill(number)
