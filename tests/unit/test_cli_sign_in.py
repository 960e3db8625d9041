from __future__ import annotations

from pathlib import Path

import pytest

from cli.browser import open_in_browser
from cli.errors import CommandFailed
from cli.folder import DataFolder
from cli.sign_in import sign_in_link


async def test_without_a_mesh_there_is_no_link(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="run `pmp up` first"):
        await sign_in_link(DataFolder(tmp_path))


def test_no_browser_is_looked_for_where_nobody_sees_it() -> None:
    assert not open_in_browser("http://127.0.0.1:9/", {})
    assert not open_in_browser("http://127.0.0.1:9/", {"DISPLAY": ":0"}), "the output is no terminal"
