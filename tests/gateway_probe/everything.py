"""A server of every rpc of the contracts, and of streams over HTTP: calls that arrive have passed the gateway."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import grpc
from grpc_health.v1.health_pb2 import HealthCheckResponse

from gateway.contracts import read_descriptors

HEALTH = "/grpc.health.v1.Health/Check"


class Everything(grpc.GenericRpcHandler):
    """Answers every call with an empty message, and stores the last request of each path."""

    def __init__(self) -> None:
        self.port = 0
        self.stream_port = 0
        """Port of what answers every request for a stream over HTTP."""
        self.requests: dict[str, bytes] = {}
        self._streams = {
            f"/{file.package}.{service.name}/{method.name}"
            for file in read_descriptors().file
            for service in file.service
            for method in service.method
            if method.server_streaming
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        path = handler_call_details.method
        answer = HealthCheckResponse(status=HealthCheckResponse.SERVING).SerializeToString() if path == HEALTH else b""

        def received(request: bytes, _context: grpc.ServicerContext) -> bytes:
            self.requests[path] = request
            return answer

        def streamed(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
            yield received(request, context)

        if path in self._streams:
            return grpc.unary_stream_rpc_method_handler(streamed)
        return grpc.unary_unary_rpc_method_handler(received)


class Streams(BaseHTTPRequestHandler):
    """Answers every GET with an empty body."""

    def do_GET(self) -> None:
        """Answers."""
        self.send_response(HTTPStatus.OK)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the base class's name)
        """Logs nothing."""


@contextmanager
def running_everything() -> Generator[Everything]:
    """The server, on a free port."""
    server = grpc.server(ThreadPoolExecutor(4), handlers=[everything := Everything()])
    everything.port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with ThreadingHTTPServer(("127.0.0.1", 0), Streams) as streams:
        everything.stream_port = streams.server_port
        answering = Thread(target=streams.serve_forever)
        answering.start()
        try:
            yield everything
        finally:
            streams.shutdown()
            answering.join()
            server.stop(None).wait()
