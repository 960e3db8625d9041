"""Runs one service, or the part of it that runs apart: `python -m services ingestion [worker]`."""

from __future__ import annotations

import os
import runpy
import sys
from importlib.util import find_spec

name = ".".join(["services", *sys.argv[1:]])
if len(sys.argv) == 1 or find_spec(name) is None:
    sys.exit(f"usage: python -m services SERVICE [PART]: there is no {name!r}")
# gRPC's own remarks, such as a server's goodbye, are no JSON; it reads this when it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
runpy.run_module(name, run_name="__main__", alter_sys=True)
