"""Examines how long the gateway's certificate is valid."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Final

import httpx

from cli.doctor.findings import Finding
from cli.doctor.subject import NotExamined, Subject

_DAYS: Final = re.compile(r"^envoy_server_days_until_first_cert_expiring(?:\{[^}]*\})? (\d+)", re.MULTILINE)
_SOON: Final = 14
_SECONDS: Final = 5.0


async def certificates(subject: Subject) -> AsyncIterator[Finding]:
    """Finds that the certificate which the gateway uses ends within two weeks. Without TLS there is none."""
    if subject.local is None:
        raise NotExamined("the alert CertificateExpires watches the gateway's")
    url = next((each.metrics_url for each in subject.local.state.processes if each.kind == "gateway"), None)
    if url is None:
        raise NotExamined("the gateway is not running")
    async with httpx.AsyncClient(timeout=_SECONDS, trust_env=False) as client:
        found = _DAYS.search((await client.get(url)).text)
    if found and int(found[1]) < _SOON:
        what = f"the gateway's certificate is valid for {found[1]} more days"
        yield Finding(
            what=what, action="`certbot renew`, and see that its hook moves the files into PMP_GATEWAY_CERTIFICATES (docs/gateway.md)"
        )
