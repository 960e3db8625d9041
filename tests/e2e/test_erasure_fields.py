"""An erasure removes a person from every field that a request can fill, and nothing of a late request is stored."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from buf.validate import validate_pb2
from google.api import annotations_pb2
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.json_format import MessageToDict
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from pmp.gdpr.v1 import gdpr_pb2
from pmp.identity.v1 import identity_pb2
from pmp.ingestion.v1 import ingestion_pb2
from pmp.journeys.v1 import journeys_pb2
from pmp.options.v1 import options_pb2
from pmp.purchases.v1 import purchases_pb2

from kit.scrubbing.fields import text_of
from tests.e2e.mesh import Mesh, running
from tests.e2e.person import asked, call
from tests.servers import until

WORDPRESS, ORDER = "7311973119731", "1815"
MARK = re.compile(rb"zq[0-9]{4}ada")
REPORTING = [
    *("RegisterUser", "RegisterUsers", "IdentifyUser", "UpdateUser", "MergeUsers", "UnmergeUsers", "UpdateConsent", "TrackEvent"),
    *("TrackEvents", "TrackPurchase", "TrackPurchases", "RefundPurchase", "UpdatePaymentStatus", "TrackTouchpoint", "TrackConversion"),
]
"""The rpcs that report something of a person, in an order in which each is accepted."""
ASKING = {"EraseUserData", "ExportUserData", "DownloadArchive"}
"""The other rpcs that change something: they store nothing of their requests but an identifier."""
FIXED: Mapping[str, Any] = {
    "user_id": WORDPRESS,
    "wordpress_id": int(WORDPRESS),
    "analytics_tracking": True,
    "currency": "EUR",
    "payment_status": "completed",
    "ip_address": "203.0.113.9",
    "Touchpoint.id": "reported-1",
    "Event.id": "",
    "Conversion.id": "reported-2",
    "Purchase.order_id": ORDER,
    "UpdateUserRequest.id": WORDPRESS,
    "MergeUsersRequest.id": WORDPRESS,
    "UnmergeUsersRequest.id": WORDPRESS,
    "UpdateConsentRequest.id": WORDPRESS,
    "RefundPurchaseRequest.id": ORDER,
    "UpdatePaymentStatusRequest.id": ORDER,
}
"""Values that can't be marks: identifiers of the person and ids of resources, by field or by message and field."""


class Marks:
    """Fills requests, and records which mark is in which field."""

    def __init__(self, other: str) -> None:
        self._fixed = {**FIXED, "merged_user_id": other}
        self.fields: dict[str, str] = {}

    def request(self, method: MethodDescriptor) -> Any:
        """Returns a request in which every text has a mark of its own."""
        message = GetMessageClass(method.input_type)()
        self._fill(message, method.name)
        return message

    def _fill(self, message: Any, path: str) -> None:
        fields: Iterable[FieldDescriptor] = message.DESCRIPTOR.fields
        for field in fields:
            own = f"{path}.{field.name}"
            if field.message_type is None:
                value = self._value(field, own)
                if value is not None and field.is_repeated:
                    getattr(message, field.name).append(value)
                elif value is not None:
                    setattr(message, field.name, value)
            elif field.message_type is Timestamp.DESCRIPTOR:
                getattr(message, field.name).GetCurrentTime()
            elif field.message_type is Struct.DESCRIPTOR:
                marks = {self._mark(f"{own} name"): {"deep": [self._mark(f"{own} value")]}}
                known = {
                    name: self._mark(f"{own}.{name}") for name in ("visitor_id", "course_id", "course", "currency", "list", "last_name")
                }
                getattr(message, field.name).update(marks | known)
            # The JSON body would repeat the fields.
            elif field.name != "json_body":
                self._fill(getattr(message, field.name).add() if field.is_repeated else getattr(message, field.name), own)

    def _value(self, field: FieldDescriptor, path: str) -> Any:
        fixed = self._fixed.get(".".join(field.full_name.split(".")[-2:]), self._fixed.get(field.name))
        if fixed is not None:
            return fixed
        if field.type == FieldDescriptor.TYPE_STRING:
            return self._text(field, path)
        return None if field.type in (FieldDescriptor.TYPE_BOOL, FieldDescriptor.TYPE_ENUM) else 1

    def _text(self, field: FieldDescriptor, path: str) -> str:
        options: Any = field.GetOptions()
        rules = options.Extensions[validate_pb2.field].string
        words = [word for word in getattr(rules, "in") if word]
        if words or text_of(field) == options_pb2.TEXT_SHOP:
            return words[0] if words else "what-is-sold"
        mark = self._mark(path)
        if rules.email:
            return f"{mark}@example.org"
        if text_of(field) == options_pb2.TEXT_URL:
            return f"https://{mark}.example/a/{mark}/author/{mark}?utm_source={mark}&utm_campaign={mark}&lang={mark}&x={mark}#{mark}"
        return mark if rules.pattern else f"{mark} {field.name} of {mark}"[: rules.max_len or 100]

    def _mark(self, path: str) -> str:
        mark = f"zq{len(self.fields):04}ada"
        self.fields[mark] = path
        return mark


def _methods() -> dict[str, MethodDescriptor]:
    """The rpcs with side effects that callers of the gateway may use."""
    found: dict[str, MethodDescriptor] = {}
    for module in (gdpr_pb2, identity_pb2, ingestion_pb2, journeys_pb2, purchases_pb2):
        services: Iterable[ServiceDescriptor] = module.DESCRIPTOR.services_by_name.values()
        for method in (method for service in services for method in service.methods):
            options: Any = method.GetOptions()
            changes = options.idempotency_level != MethodOptions.NO_SIDE_EFFECTS
            if changes and options.Extensions[options_pb2.access] != options_pb2.ACCESS_INTERNAL:
                found[method.name] = method
    return found


METHODS = _methods()


def send(mesh: Mesh, method: MethodDescriptor, request: Any) -> int:
    """Sends a request as JSON through the gateway; returns the status."""
    options: Any = method.GetOptions()
    rule = options.Extensions[annotations_pb2.http]
    verb = rule.WhichOneof("pattern")
    path = getattr(rule, verb).replace("{id}", quote(getattr(request, "id", ""), safe=""))
    of = options.Extensions[options_pb2.body]
    body = MessageToDict(request if of == "*" else getattr(request, of), preserving_proto_field_name=True)
    if of == "*" and "{id}" in getattr(rule, verb):
        body.pop("id")
    answer = mesh.client.request(verb.upper(), f"{mesh.url}{path}", json=body, headers=mesh.credentials("admin"))
    assert answer.status_code in (200, 404, 409), (method.name, answer.text)
    return answer.status_code


def found(mesh: Mesh, pattern: str = "*") -> dict[str, set[str]]:
    """Returns the marks in each file of the mesh."""
    places: dict[str, set[str]] = {}
    for path in sorted(Path(mesh.data).rglob(pattern)):
        marks = {mark.decode() for mark in MARK.findall(path.read_bytes())} if path.is_file() else set[str]()
        if marks:
            places[str(path.relative_to(mesh.data))] = marks
    return places


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with running(tmp_path_factory.mktemp("mesh")) as mesh:
        yield mesh


@pytest.fixture(scope="module")
def marks(mesh: Mesh) -> Marks:
    """Everything that can be reported of a person, once every service has stored it."""
    marks = Marks(call(mesh, "POST", "users/register", {"email": "charles@example.org"})["user_id"])
    for name in REPORTING:
        assert send(mesh, METHODS[name], marks.request(METHODS[name])) == 200, name
    mesh.drained()
    until(lambda: any("journeys.db" in place and "TrackEvents" in str(left(marks, {place: of})) for place, of in found(mesh).items()))
    return marks


def left(marks: Marks, places: Mapping[str, set[str]]) -> dict[str, list[str]]:
    """Returns the fields whose marks were found, by file."""
    return {place: sorted(marks.fields.get(mark, mark) for mark in several) for place, several in places.items()}


def test_every_rpc_that_reports_something_of_a_person_is_covered() -> None:
    assert {*REPORTING, *ASKING} == METHODS.keys()


def test_a_person_is_gone_from_every_field(mesh: Mesh, marks: Marks) -> None:
    before = found(mesh)
    databases = {f"{name}.db" for name in ("analytics", "gdpr", "identity", "ingestion", "journeys", "purchases")}
    assert all(any(place.startswith(database) for place in before) for database in databases), before.keys()
    assert any("aof" in place for place in before), "Redis"
    stored = {marks.fields[mark].partition(".")[0] for several in before.values() for mark in several if mark in marks.fields}
    assert {*REPORTING} - {"UnmergeUsers"} <= stored, "what is reported is stored somewhere"
    request = call(mesh, "DELETE", f"users/{WORDPRESS}/data")["request"]
    until(lambda: asked(mesh, request["id"])["state"] == "done", 90)
    assert left(marks, found(mesh)) == {}


def test_nothing_of_a_late_request_is_stored(mesh: Mesh, marks: Marks) -> None:
    for name in REPORTING:
        send(mesh, METHODS[name], marks.request(METHODS[name]))
    mesh.drained()
    assert left(marks, found(mesh, "*.db*")) == {}
