"""Server-streaming rpcs over HTTP: the same responses as a WebSocket and as server-sent events, to callers the gateway authenticated."""
