"""`python -m gateway.openapi`: rewrites the committed document, or with `--check` verifies that it is up to date."""

from __future__ import annotations

import sys

from gateway.committed import keep_fresh
from gateway.contracts import read_descriptors
from gateway.openapi.document import COMMITTED, committed

if __name__ == "__main__":
    sys.exit(keep_fresh("gateway.openapi", COMMITTED, committed(read_descriptors())))
