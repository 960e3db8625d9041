"""The whole shop on this machine: WordPress with Understrap, the child theme, the plugin and the double of WooCommerce, on a mesh."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from cli.folder import DataFolder
from cli.local_secrets import Secrets
from tests.e2e.mesh import Mesh
from tests.servers import PrivateMariaDb
from tests.wordpress.sites import add_pages, build_site, served, wordpress_6_5

PAGES = {"landing page": "/", "lead page": "/free-guide/", "pricing": "/pricing/", "checkout": "/checkout/"}
"""What a visitor finds."""


@dataclass(frozen=True)
class Shop:
    """A shop that tells a mesh what happens in it."""

    home: str
    mesh: Mesh
    site: Path
    visitor: httpx.Client
    """Somebody without a browser."""

    def deliver(self) -> None:
        """Has the outbox sent, as WP-Cron would."""
        assert self.visitor.post("/wp-json/pmp/v1/drain").status_code == 204


@contextmanager
def shop_on(mesh: Mesh, folder: Path, server: PrivateMariaDb, port: int) -> Generator[Shop]:
    """A shop connected to a mesh, served until the block ends."""
    secrets = Secrets.load(DataFolder(mesh.data))
    home = f"http://127.0.0.1:{port}"
    site = build_site(
        wordpress_6_5(),
        folder,
        server,
        home=home,
        PMP_ANALYTICS_GATEWAY_URL=mesh.url,
        PMP_ANALYTICS_API_KEY=secrets.api_keys[0],
        PMP_ANALYTICS_JWT_SECRET=secrets.jwt_secrets[0],
    )
    add_pages(site, home)
    with served(site, port, home) as visitor:
        yield Shop(home, mesh, site, visitor)
