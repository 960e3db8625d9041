from __future__ import annotations

from pathlib import Path

import pytest

from cli.connection import connection_code
from cli.errors import CommandFailed
from cli.folder import DataFolder


async def test_without_a_mesh_there_is_no_code(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="run `pmp up` first"):
        await connection_code(DataFolder(tmp_path))
