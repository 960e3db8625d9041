"""One event's path through the mesh is one trace, in the spans that the processes export."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.e2e.mesh import running
from tests.e2e.spans import receiving
from tests.servers import until

PERSONAL = ("ada@example.org", "203.0.113.77", "visitor-42", "secret-session")


def test_one_event_is_one_trace_from_the_gateway_to_the_topic(tmp_path_factory: pytest.TempPathFactory) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    with (
        receiving() as (received, environment),
        running(tmp_path_factory.mktemp("traced"), environment=environment) as mesh,
    ):
        event = {
            "event_type": "page_view",
            "timestamp": datetime.now(UTC).isoformat(),
            "email": "ada@example.org",
            "ip_address": "203.0.113.77",
            "user_id": "visitor-42",
            "session_id": "secret-session",
            "page_url": "https://shop.example/?email=ada@example.org",
        }
        headers = {**mesh.credentials("site", "visitor-42"), "traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
        assert mesh.client.post(f"{mesh.url}/api/v1/events/track", headers=headers, json=event).status_code == 200

        def found() -> set[str]:
            return {name for _, name, of, _, _ in received.spans if of.hex() == trace}

        def services() -> set[str]:
            return {service for service, _, of, _, _ in received.spans if of.hex() == trace}

        until(lambda: {"log append", "log consume", "outbox publish"} <= found() and any("INSERT" in name.upper() for name in found()), 30)

        def whole() -> bool:
            own = [span for span in received.spans if span[2].hex() == trace]
            known = {span[3] for span in own}
            return {span[4] for span in own} - known == {bytes.fromhex("00f067aa0ba902b7")}

        # Consumers of the topic continue the same trace.
        until(lambda: services() == {"gateway", "ingestion", "ingestion-worker", "identity", "journeys", "analytics"}, 30)
        # Every span has a parent in the trace, and the first one the caller's.
        until(whole, 30)
        assert any("TrackEvent" in name for name in found()), found()
        logs = "".join(path.read_text(errors="replace") for path in (mesh.data / "logs").iterdir())
    for personal in PERSONAL:
        assert personal not in received.text
        assert personal not in logs
