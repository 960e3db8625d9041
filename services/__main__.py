"""Runs one service, or the part of it that runs apart: `python -m services ingestion [worker]`."""

from __future__ import annotations

import runpy
import sys

runpy.run_module(".".join(["services", *sys.argv[1:]]), run_name="__main__", alter_sys=True)
