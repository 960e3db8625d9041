"""The plugin's own tests, in real WordPresses on a real database."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.servers import PrivateMariaDb
from tests.wordpress.sites import HERE, ROOT, build_site, program, run, wordpress_6_1, wordpress_6_5

pytestmark = pytest.mark.timeout(900)  # the first run downloads WordPress


@pytest.mark.parametrize("wordpress", [wordpress_6_1, wordpress_6_5], ids=["WordPress 6.1", "WordPress 6.5"])
def test_phpunit_passes_and_nothing_is_left_behind(wordpress: Callable[[], Path], mariadb_server: PrivateMariaDb, tmp_path: Path) -> None:
    site = build_site(wordpress(), tmp_path, mariadb_server)
    run([program("phpunit"), "--configuration", HERE / "phpunit.xml"], site)
    # Last, because what drops tables can't be rolled back.
    run([program("php"), HERE / "uninstall.php"], site)


def test_the_code_is_in_wordpress_style() -> None:
    run([program("phpcs"), "--no-colors", f"--standard={ROOT / 'wordpress' / 'phpcs.xml'}"], ROOT)
