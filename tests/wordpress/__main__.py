"""`python -m tests.wordpress`: a shop and its mesh on this machine, until Ctrl-C.

Everything lies in a temporary folder and is gone then.
"""

from __future__ import annotations

import signal
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from types import FrameType

import httpx
import typer

from cli.folder import DataFolder
from cli.welcome import command_line
from tests.servers import PrivateMariaDb
from tests.wordpress.local import PAGES, open_shop

_DELIVERY_SECONDS = 2.0


def main() -> None:
    stopped = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopped.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    with tempfile.TemporaryDirectory(prefix="pmp-wordpress-") as name:
        folder = Path(name)
        (folder / "mariadb").mkdir()
        server = PrivateMariaDb(folder / "mariadb")
        try:
            server.install()
            with open_shop(folder, server) as shop:
                pages = "\n".join(f"  {what:<13} {shop.home}{path}" for what, path in PAGES.items())
                pmp = command_line(DataFolder(shop.mesh.data))
                typer.echo(
                    f"The shop is open:\n{pages}\n  admin         {shop.home}/wp-login.php (admin, admin)\n"
                    f"Its mesh is at {shop.mesh.url}. See what arrives with `{pmp} books`. Ctrl-C stops everything.",
                )
                # As WP-Cron does on a site with visitors.
                while not stopped.wait(_DELIVERY_SECONDS):
                    with suppress(httpx.HTTPError):
                        shop.deliver()
        finally:
            server.kill(signal.SIGTERM)


if __name__ == "__main__":
    main()
