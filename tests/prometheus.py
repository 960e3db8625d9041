"""Debian's Prometheus, scraping a mesh and evaluating rules."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import httpx
import yaml
from typing_extensions import override

from tests.servers import PrivateServer, program_path

EVERY: Final = "2s"
"""Between two scrapes, and between two evaluations."""
_RANGE: Final = "60s"
"""Four readings of a gauge."""
_AGE: Final = 30
"""Seconds; what is read every 15 s is younger, also on a busy machine."""
_FOR: Final = "6s"
"""Longer than one slow answer."""


def shortened(rules: str) -> str:
    """Rules with all of their durations cut to less than a minute: `for`, ranges, and thresholds of ages that only grow."""
    rules = re.sub(r"\bfor: \w+", f"for: {_FOR}", rules)
    rules = re.sub(r"\[\d+[smhd]\]", f"[{_RANGE}]", rules)
    return re.sub(r"(_seconds\)?) > [\d* ]*\d", rf"\1 > {_AGE}", rules)


class Prometheus(PrivateServer):
    """A Prometheus.

    Args:
        rules: the texts of files with rules, by name.
        targets: URLs of metrics by workload.
    """

    program = "prometheus"

    def __init__(self, folder: Path, rules: Mapping[str, str], targets: Mapping[str, str]) -> None:
        super().__init__(folder)
        for name, text in rules.items():
            (folder / name).write_text(text)
        static = [
            {"targets": [httpx.URL(url).netloc.decode()], "labels": {"workload": name, "pod": f"{name}-1"}} for name, url in targets.items()
        ]
        config = {
            "global": {"scrape_interval": EVERY, "scrape_timeout": EVERY, "evaluation_interval": EVERY},
            "rule_files": sorted(rules),
            "scrape_configs": [{"job_name": "pmp-mesh", "static_configs": static}],
        }
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=20)

    @override
    def command(self) -> list[str]:
        return [
            program_path(self.program),
            f"--config.file={self.folder / 'prometheus.yaml'}",
            f"--storage.tsdb.path={self.folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--log.level=warn",
        ]

    @override
    def ping(self) -> None:
        self._client.get("/-/ready").raise_for_status()

    def close(self) -> None:
        """Ends it."""
        self.kill()
        self._client.close()

    def firing(self) -> set[str]:
        """Names of the alerts that fire."""
        return {each["labels"]["alertname"] for each in self._data("alerts")["alerts"] if each["state"] == "firing"}

    def rules(self) -> Sequence[Mapping[str, Any]]:
        """The state of each rule."""
        return [rule for group in self._data("rules")["groups"] for rule in group["rules"]]

    def query(self, expression: str) -> Sequence[Mapping[str, Any]]:
        """What an expression results in at this moment: labels as `metric`, and `value`."""
        return self._data("query", query=expression)["result"]

    def names(self) -> set[str]:
        """The names of all metrics that were ever scraped or recorded."""
        return set(self._data("label/__name__/values"))

    def fired(self) -> set[str]:
        """Names of the alerts that fire, or have fired."""
        return {each["metric"]["alertname"] for each in self.query('last_over_time(ALERTS{alertstate="firing"}[1h])')}

    def wait_for(self, alerts: set[str], seconds: float) -> None:
        """Waits until alerts have fired.

        Raises:
            AssertionError: some did not in time.
        """
        left, deadline = set(alerts), time.monotonic() + seconds
        while left := left - self.fired():
            assert time.monotonic() < deadline, f"these do not fire: {sorted(left)}"
            time.sleep(1)

    def _data(self, what: str, **parameters: str) -> Any:
        answer = self._client.get(f"/api/v1/{what}", params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]
