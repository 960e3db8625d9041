"""The whole shop on this machine: WordPress with Understrap, the child theme, the plugin and the double of WooCommerce, on a mesh."""

from __future__ import annotations

import json
import os
from base64 import b64encode
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from cli.folder import DataFolder
from cli.local_secrets import Secrets
from tests.e2e.mesh import Mesh, running
from tests.relay import Relay
from tests.servers import PrivateMariaDb, free_port
from tests.wordpress.sites import add_pages, build_site, served, wordpress_6_5

PAGES = {"landing page": "/", "lead page": "/free-guide/", "pricing": "/pricing/", "checkout": "/checkout/"}
"""What a visitor finds."""


@dataclass(frozen=True)
class Shop:
    """A shop that reports to a mesh what happens in it."""

    home: str
    mesh: Mesh
    site: Path
    visitor: httpx.Client
    """A client without a browser."""

    def deliver(self) -> None:
        """Has the outbox sent, as WP-Cron would."""
        assert self.visitor.post("/wp-json/pmp/v1/drain").status_code == 204


@contextmanager
def open_shop(
    folder: Path,
    server: PrivateMariaDb,
    front: Relay | None = None,
    gateway: Relay | None = None,
    *,
    is_connected: bool = True,
) -> Generator[Shop]:
    """A shop and a mesh that call each other, until the block ends.

    Args:
        folder: Where both of them go.
        server: Where the shop's database goes.
        front: What browsers reach the shop through; directly if not given.
        gateway: What the shop reaches the mesh through; directly if not given.
        is_connected: Whether the shop knows the mesh. Otherwise a code of `pmp connect` connects it.
    """
    port = free_port()
    home = f"http://127.0.0.1:{port}"
    if front is not None:
        front.to, home = port, front.url
    shared = "whsec_" + b64encode(os.urandom(32)).decode()
    calls = {"wordpress": f"{home}/wp-json/pmp/v1/erasures"}
    environment = {
        "PMP_SITE_ERASURE_CALLS": json.dumps(calls),
        "PMP_SITE_ERASURE_SECRET": shared,
        # The mesh gets to know the address of a shop that is connected by a code.
        **({"PMP_SITE_USERS_URL": f"{home}/wp-json/pmp/v1/users"} if is_connected else {}),
    }
    with running(folder / "mesh", environment=environment) as mesh:
        if gateway is not None:
            gateway.to = int(mesh.url.rpartition(":")[2])
        secrets = Secrets.load(DataFolder(mesh.data))
        constants = {
            "PMP_ANALYTICS_GATEWAY_URL": mesh.url if gateway is None else gateway.url,
            "PMP_ANALYTICS_API_KEY": secrets.api_keys[0],
            "PMP_ANALYTICS_JWT_SECRET": secrets.jwt_secrets[0],
            "PMP_ANALYTICS_ERASURE_SECRET": shared,
        }
        site = build_site(wordpress_6_5(), folder, server, home=home, **(constants if is_connected else {}))
        add_pages(site, home)
        with served(site, port, home) as visitor:
            yield Shop(home, mesh, site, visitor)
