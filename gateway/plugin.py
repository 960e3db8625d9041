"""The paths of reports, for the WordPress plugin: it passes on to its dashboard what a session of the mesh's own dashboard opens.

`python -m gateway.plugin` rewrites the committed `reports.json`, `--check` verifies that it is up to date.
"""

from __future__ import annotations

import json
import sys
from typing import Final

from google.protobuf.descriptor_pb2 import FileDescriptorSet

from gateway.committed import keep_fresh
from gateway.contracts import HERE, read_descriptors, rpcs

COMMITTED: Final = HERE.parent / "wordpress" / "pmp-analytics" / "reports.json"


def reports(descriptors: FileDescriptorSet) -> str:
    """The text of the committed list: templates of paths, sorted."""
    paths = {path for rpc in rpcs(descriptors) for verb, path in rpc.rest if rpc.is_for_sessions(verb)}
    return json.dumps(sorted(paths), indent=1) + "\n"


if __name__ == "__main__":
    sys.exit(keep_fresh("gateway.plugin", COMMITTED, reports(read_descriptors())))
