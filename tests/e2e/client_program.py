"""A program of another system: it calls a mesh with the client, and has nothing else of the project.

Its environment has `PMP_URL`, `PMP_API_KEY` and `PMP_JWT_SECRET`. Prints what it received, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from datetime import UTC, datetime
from importlib.util import find_spec

from pmp.gdpr.v1.gdpr_pb2 import DownloadArchiveRequest, ExportUserDataRequest
from pmp.gdpr.v1.gdpr_pb2_grpc import GdprServiceStub
from pmp.ingestion.v1.event_pb2 import Event
from pmp.ingestion.v1.ingestion_pb2 import GetAccountingRequest, TrackEventRequest
from pmp.ingestion.v1.ingestion_pb2_grpc import IngestionServiceStub
from pmp_mesh_client.channel import connect, connect_async
from pmp_mesh_client.credentials import MeshCredentials
from pmp_mesh_client.tokens import MintedToken, Scope

URL = os.environ["PMP_URL"]
CREDENTIALS = MeshCredentials(os.environ["PMP_API_KEY"], MintedToken(os.environ["PMP_JWT_SECRET"], Scope.ADMIN, "1"))


def event(name: str) -> TrackEventRequest:
    tracked = Event(id=name, event_type="invoice_paid", platform="billing", user_id="4711")
    tracked.timestamp.FromDatetime(datetime.now(UTC))
    return TrackEventRequest(event=tracked)


def blocking() -> dict[str, str | int]:
    """Tracks an event, reads the books, and streams an archive."""
    with connect(URL, CREDENTIALS) as channel:
        ingestion, gdpr = IngestionServiceStub(channel), GdprServiceStub(channel)
        tracked = ingestion.TrackEvent(event("blocking"))
        export = gdpr.ExportUserData(ExportUserDataRequest(id="4711"))
        link = export.request.download.path
        portions = gdpr.DownloadArchive(DownloadArchiveRequest(id=export.request.id, token=link.rpartition("=")[2]))
        archive = json.loads(b"".join(portion.data for portion in portions))
        received: int = ingestion.GetAccounting(GetAccountingRequest()).total.received
    return {"event": tracked.event_id, "received": received, "complete": archive["complete"]}


async def concurrent() -> dict[str, str | int]:
    """The same by asyncio."""
    async with connect_async(URL, CREDENTIALS) as channel:
        ingestion, gdpr = IngestionServiceStub(channel), GdprServiceStub(channel)
        tracked = await ingestion.TrackEvent(event("concurrent"))
        export = await gdpr.ExportUserData(ExportUserDataRequest(id="4711"))
        link = export.request.download.path
        portions = gdpr.DownloadArchive(DownloadArchiveRequest(id=export.request.id, token=link.rpartition("=")[2]))
        archive = json.loads(b"".join([portion.data async for portion in portions]))
        received: int = (await ingestion.GetAccounting(GetAccountingRequest())).total.received
    return {"event": tracked.event_id, "received": received, "complete": archive["complete"]}


if __name__ == "__main__":
    found = [name for name in ("cli", "gateway", "kit", "services") if find_spec(name)]
    sys.stdout.write(json.dumps({"found": found, "blocking": blocking(), "concurrent": asyncio.run(concurrent())}))
