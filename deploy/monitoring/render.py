"""`python -m deploy.monitoring.render`: rewrites the committed rules and dashboards, `--check` verifies that they are up to date."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import yaml

from deploy.monitoring.dashboards import DASHBOARDS
from deploy.monitoring.grafana import json_model
from deploy.monitoring.objectives import recording_rules
from gateway.committed import keep_fresh
from gateway.contracts import read_descriptors, rpcs

_MODULE: Final = "deploy.monitoring.render"
COMPONENTS: Final = Path(__file__).resolve().parent.parent / "components"
RECORDED: Final = COMPONENTS / "alerts" / "recorded.yaml"
PAGES: Final = COMPONENTS / "monitoring" / "dashboards"
_HEAD: Final = f"# Rendered by `python -m {_MODULE}` from deploy/monitoring/objectives.py and the contracts. Do not edit.\n"


def rendered() -> dict[Path, str]:
    """The text of each rendered file."""
    rules = yaml.safe_dump(recording_rules(rpcs(read_descriptors())), sort_keys=False, width=140)
    pages = {PAGES / f"{name}.json": json.dumps(json_model(each), indent=2) + "\n" for name, each in DASHBOARDS.items()}
    return {RECORDED: _HEAD + rules, **pages}


def main(arguments: Sequence[str] | None = None) -> int:
    """Rewrites the files, or with `--check` verifies that they are up to date. Returns the exit status."""
    return max(keep_fresh(_MODULE, path, text, arguments) for path, text in rendered().items())


if __name__ == "__main__":
    sys.exit(main())
