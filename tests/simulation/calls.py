"""What the clients of a run send."""

from __future__ import annotations

import time
from dataclasses import dataclass
from random import Random
from typing import Final

from pmp.ingestion.v1 import event_pb2 as pb
from pmp.log.v1 import log_pb2

HOUR: Final = int(time.time() // 3600) - 2


@dataclass(slots=True)
class Request:
    """What a client sends in one call: (id, content, key) of each event."""

    events: list[tuple[str, str, str]]
    rejected: int
    again: bool


def requests_of(random: Random, number: int) -> list[Request]:
    """Ids are sent again by the same client, by another one, or with other content: ids of all clients overlap a little."""
    requests: list[Request] = []
    for turn in range(random.randrange(1, 4)):
        events: list[tuple[str, str, str]] = []
        for index in range(random.choice((0, 1, 1, 2, 3))):
            shared = random.random() < 0.2
            event_id = f"shared-{random.randrange(3)}" if shared else f"e-{number}-{turn}-{index}"
            if random.random() < 0.1:
                event_id += "-suppressed"
            content = "other" if shared and random.random() < 0.4 else "same"
            events.append((event_id, content, random.choice(("user", "visitor", event_id))))
        requests.append(Request(events, rejected=random.choice((0, 0, 1)) if events else 1, again=random.random() < 0.2))
    return requests


def record(event_id: str, content: str, received_at: int) -> bytes:
    event = pb.Event(id=event_id, event_type="page_view", platform="wordpress", source=content)
    event.timestamp.FromSeconds(HOUR * 3600)
    received = pb.ReceivedEvent(event=event, client="shop", scope="site")
    received.received_at.FromMicroseconds(received_at)
    return log_pb2.Record(type=received.DESCRIPTOR.full_name, payload=received.SerializeToString()).SerializeToString()
