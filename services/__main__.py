"""Runs a role of a service: `python -m services ingestion`, or one that has a name of its own, `python -m services ingestion worker`."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path

_USAGE = "usage: python -m services SERVICE [ROLE]"
_FOLDER = Path(__file__).parent


def main(words: list[str]) -> None:
    """Runs the role that the words name; exits with what is wrong with them."""
    match words:
        case [service]:
            module = "composition"
        case [service, module]:
            pass
        case _:
            sys.exit(_USAGE)
    if not (_FOLDER / service / f"{module}.py").is_file():
        sys.exit(f"{_USAGE}: there is no {' '.join(words)!r}")
    # gRPC's own remarks, such as a server's goodbye, are no JSON; it reads this when it is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    import_module(f"services.{service}.{module}").ROLE.run()


if __name__ == "__main__":
    main(sys.argv[1:])
