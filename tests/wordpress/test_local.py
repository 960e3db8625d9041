"""`make wordpress` opens a shop, and removes everything when it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from tests.servers import until
from tests.wordpress.sites import ROOT

pytestmark = pytest.mark.timeout(900)  # the first run downloads WordPress


def test_a_shop_opens_and_ctrl_c_ends_all_of_it(tmp_path: Path) -> None:
    said = tmp_path / "said"
    with said.open("wb") as output:
        # A group of its own, as a terminal gives it.
        shop = subprocess.Popen(
            [sys.executable, "-m", "tests.wordpress"],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(tmp_path)},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        until(lambda: "Ctrl-C" in said.read_text() or shop.poll() is not None, 180)
        found = re.search(r"landing page +(\S+)", said.read_text())
        assert found, said.read_text()
        assert "lead-email" in httpx.get(found[1], timeout=60).text
        processes = psutil.Process(shop.pid).children(recursive=True)
        assert {"php", "envoy", "mariadbd"} <= {Path(process.exe()).name.rstrip(".0123456789") for process in processes}
    finally:
        if shop.poll() is None:
            os.killpg(shop.pid, signal.SIGINT)
        status = shop.wait(90)
    assert (status, "Traceback" in said.read_text()) == (0, False), said.read_text()
    assert [process for process in processes if _runs(process)] == []
    assert [path.name for path in tmp_path.iterdir()] == ["said"]


def _runs(process: psutil.Process) -> bool:
    """Not ended; of one that has, nobody may have asked how, where the machine's first process does not."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
