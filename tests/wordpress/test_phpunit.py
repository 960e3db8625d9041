"""The plugin's own tests, in real WordPresses on a real database."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pymysql
import pytest

from tests.servers import PrivateMariaDb
from tests.wordpress.sites import ROOT, build_site, wordpress_6_1, wordpress_6_5

pytestmark = pytest.mark.timeout(900)  # the first run downloads WordPress

HERE = Path(__file__).parent


@pytest.mark.parametrize("wordpress", [wordpress_6_1, wordpress_6_5], ids=["WordPress 6.1", "WordPress 6.5"])
def test_phpunit_passes(wordpress: Callable[[], Path], mariadb_server: PrivateMariaDb, tmp_path: Path) -> None:
    database = f"site_{wordpress.__name__}"
    with pymysql.connect(host="127.0.0.1", port=mariadb_server.port, user="root") as connection, connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE IF EXISTS {database}")
        cursor.execute(f"CREATE DATABASE {database} CHARACTER SET utf8mb4")
    site = build_site(wordpress(), tmp_path, database=database, port=mariadb_server.port)
    environment = {**os.environ, "PMP_SITE": str(site)}
    _run([_program("php"), HERE / "install.php"], environment)
    _run([_program("phpunit"), "--configuration", HERE / "phpunit.xml"], environment)


def test_the_code_is_in_wordpress_style() -> None:
    _run([_program("phpcs"), "--no-colors", f"--standard={ROOT / 'wordpress' / 'phpcs.xml'}"], dict(os.environ))


def _run(command: list[str | Path], environment: dict[str, str]) -> None:
    ran = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    # PHPUnit's own count, for whoever reads the log.
    print(ran.stdout[-400:])  # noqa: T201


def _program(name: str) -> str:
    path = shutil.which(name)
    assert path, f"{name} is missing: run `make test`, which installs it"
    return path
