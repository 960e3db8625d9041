"""`python -m bench.systems HOST:PORT FAILING HANGING BUSY`: systems on loopback that receive webhooks, each at a path of its own.

The one at the path FAILING answers 500, the one at HANGING after three seconds, the one at BUSY 429 with `retry-after: 30`; all
others 200. From `POST /heal` on all of them answer 200. `GET /received` returns what each has answered 200, as `Received`, and
`GET /late` how late: seconds from when the event happened until its webhook was received first.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final, cast

import orjson
import uvloop
from typing_extensions import override

from kit.settings import split_address

_HANG_SECONDS: Final = 3.0
_RETRY_AFTER_SECONDS: Final = 30
HEAL: Final = "/heal"
RECEIVED: Final = "/received"
LATE: Final = "/late"
_HEAD_END: Final = b"\r\n\r\n"
_OK: Final = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
_FAILS: Final = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n"
_BUSY: Final = b"HTTP/1.1 429 Too Many Requests\r\nretry-after: %d\r\ncontent-length: 0\r\n\r\n" % _RETRY_AFTER_SECONDS


@dataclass(slots=True)
class Received:
    """What one system received and answered 200."""

    webhooks: int = 0
    """Those with distinct ids."""
    repeated: int = 0
    """Those whose id it had received before."""


class _Systems:
    """What systems have received, and how they answer.

    Args:
        failing: path of the one that fails.
        hanging: path of the one that hangs.
        busy: path of the one that is busy.
    """

    def __init__(self, failing: str, hanging: str, busy: str) -> None:
        self.hanging = hanging
        self.refusals = {failing: _FAILS, busy: _BUSY}
        self.received: defaultdict[str, Received] = defaultdict(Received)
        self.late: defaultdict[str, list[float]] = defaultdict(list)
        self._ids: defaultdict[str, set[bytes]] = defaultdict(set)

    def heal(self) -> None:
        self.refusals.clear()
        self.hanging = ""

    def note(self, path: str, id_: bytes, body: bytes) -> None:
        received, ids = self.received[path], self._ids[path]
        if id_ in ids:
            received.repeated += 1
            return
        ids.add(id_)
        received.webhooks += 1
        self.late[path].append(time.time() - datetime.fromisoformat(orjson.loads(body)["timestamp"]).timestamp())


class _Connection(asyncio.Protocol):
    def __init__(self, systems: _Systems) -> None:
        self._systems = systems
        self._buffer = b""

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    @override
    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, rest = self._buffer.partition(_HEAD_END)
        if not found:
            return
        line, *fields = head.split(b"\r\n")
        headers = {name.lower(): value for name, _, value in (each.partition(b": ") for each in fields)}
        length = int(headers.get(b"content-length", b"0"))
        if len(rest) < length:
            return
        self._buffer = b""  # the clients wait for an answer before they send the next request
        path = line.split(b" ")[1].decode()
        if path == self._systems.hanging:
            asyncio.get_running_loop().call_later(_HANG_SECONDS, self._answer, path, headers.get(b"webhook-id", b""), rest)
        else:
            self._answer(path, headers.get(b"webhook-id", b""), rest)

    def _answer(self, path: str, id_: bytes, body: bytes) -> None:
        answer = self._systems.refusals.get(path, _OK)
        if path == RECEIVED:
            answer = _json({each: asdict(received) for each, received in self._systems.received.items()})
        elif path == LATE:
            answer = _json(self._systems.late)
        elif path == HEAL:
            self._systems.heal()
        elif answer is _OK and id_:
            self._systems.note(path, id_, body)
        self._transport.write(answer)


def _json(content: Any) -> bytes:
    body = orjson.dumps(content)
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body


async def main(address: str, *ill: str) -> None:
    """Serves until it is ended."""
    systems = _Systems(*ill)
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(systems), *split_address(address))
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
