"""The plugin's own tests, in real WordPresses on a real database, and the mesh's rules held against what they recorded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from google.protobuf.json_format import Parse
from google.protobuf.message import Message
from pmp.destinations.v1.conflicts_pb2 import Conflict
from pmp.gdpr.v1.gdpr_pb2 import Consent
from pmp.identity.v1.identity_pb2 import Registration, UserUpdate
from pmp.ingestion.v1.event_pb2 import Event
from pmp.journeys.v1.journeys_pb2 import Conversion, Touchpoint
from pmp.purchases.v1.purchases_pb2 import Purchase, Refund
from protovalidate import Validator

from tests.servers import PrivateMariaDb
from tests.wordpress.sites import HERE, ROOT, build_site, program, run, wordpress_6_5, wordpress_of_debian

pytestmark = pytest.mark.timeout(900)  # the first run downloads WordPress

_MESSAGES: Final[dict[str, type[Message]]] = {
    "event": Event,
    "registration": Registration,
    "profile": UserUpdate,
    "purchase": Purchase,
    "refund": Refund,
    "touchpoint": Touchpoint,
    "conversion": Conversion,
    "consent": Consent,
    "conflict": Conflict,
}


@pytest.mark.parametrize("wordpress", [wordpress_of_debian, wordpress_6_5], ids=["Debian's WordPress", "WordPress 6.5"])
def test_phpunit_passes_and_the_mesh_accepts_everything_recorded(
    wordpress: Callable[[], Path], mariadb_server: PrivateMariaDb, tmp_path: Path
) -> None:
    site = build_site(wordpress(), tmp_path, mariadb_server)
    recorded = tmp_path / "recorded.jsonl"
    run([program("phpunit"), "--configuration", HERE / "phpunit.xml"], site, PMP_RECORDED=str(recorded))
    _keeps_all_rules(recorded)
    # Last, because what drops tables can't be rolled back.
    run([program("php"), HERE / "uninstall.php"], site)


@pytest.mark.skipif(shutil.which("phpcs") is None, reason="Debian 13 has no php-codesniffer; the style is the same everywhere")
def test_the_code_is_in_wordpress_style() -> None:
    run([program("phpcs"), "--no-colors", f"--standard={ROOT / 'wordpress' / 'phpcs.xml'}"], ROOT)


def _keeps_all_rules(recorded: Path) -> None:
    validator = Validator()
    kinds: set[str] = set()
    for line in recorded.read_text().splitlines():
        entry = json.loads(line)
        kinds.add(entry["kind"])
        # Stricter than Envoy, which silently drops unknown fields.
        message = Parse(entry["json"], _MESSAGES[entry["kind"]]())
        assert validator.collect_violations(message) == [], entry
        assert len(entry["json"]) <= 32768, entry["test"]
    assert kinds == _MESSAGES.keys()
