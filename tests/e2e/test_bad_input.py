"""Invalid calls through the real gateway: the status, the one JSON shape, and nothing stored by mistake."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import grpc
import jwt
import pytest
from google.protobuf.descriptor import MethodDescriptor
from pmp.ingestion.v1 import ingestion_pb2 as pb
from pmp.ingestion.v1.ingestion_pb2_grpc import IngestionServiceStub

from tests.e2e import marked
from tests.e2e.mesh import Mesh, running

TRACK = "/api/v1/events/track"
BATCH = "/api/v1/events/batch"


def event(**fields: Any) -> dict[str, Any]:
    return {"event_type": "page_view", "timestamp": datetime.now(UTC).isoformat(), "session_id": "s1", **fields}


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with running(tmp_path_factory.mktemp("mesh")) as mesh:
        yield mesh


@pytest.fixture(scope="module")
def site(mesh: Mesh) -> dict[str, str]:
    return mesh.credentials("site", "1")


def refused(mesh: Mesh, method: str, path: str, headers: dict[str, str], **sent: Any) -> tuple[int, dict[str, Any]]:
    """Status and body of a refused call; asserts that the books record nothing as stored."""
    before = mesh.drained()
    answer = mesh.client.request(method, mesh.url + path, headers=headers, **sent)
    body = answer.json()
    assert set(body) == {"code", "message", "details"}, body
    assert answer.headers["content-type"].startswith("application/json")
    after = mesh.drained()
    assert after["stored"] == before["stored"]
    assert after["balanced"]
    return answer.status_code, body


MALFORMED = {
    "cut off": ('{"event_type": "page_view", ', ""),
    "not JSON": ("not json", ""),
    "a number for a text": (json.dumps(event(event_type=7)), "event_type"),
    "no time at all": (json.dumps(event(timestamp="yesterday")), "timestamp format"),
    "a list for an id": (json.dumps(event(id=["x"])), "id"),
    "no timestamp": (json.dumps({"event_type": "page_view"}), "timestamp"),
    "no event type": (json.dumps({"timestamp": "2026-11-22T10:00:00Z"}), "event_type"),
    "an empty event type": (json.dumps(event(event_type="")), "event_type"),
    "a session with a space": (json.dumps(event(session_id="a b")), "session_id"),
    "a trailing space": (json.dumps(event(id="trailing ")), "id"),
    "two days ahead": (json.dumps(event(timestamp=(datetime.now(UTC) + timedelta(days=2)).isoformat())), "ahead"),
    "too deep": (json.dumps(event(metadata={"a": {"b": {"c": {"d": {"e": {"f": {"g": {"h": {}}}}}}}}})), "metadata"),
    "nothing": (json.dumps({}), "required"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_event_is_a_400_that_names_what_is_wrong(mesh: Mesh, site: dict[str, str], case: str) -> None:
    content, words = MALFORMED[case]
    status, body = refused(mesh, "POST", TRACK, {**site, "content-type": "application/json"}, content=content)
    assert (status, body["code"]) == (400, 3)
    assert words in json.dumps(body)


def test_a_broken_rule_comes_with_its_field_in_the_details(mesh: Mesh, site: dict[str, str]) -> None:
    _, body = refused(mesh, "POST", f"{TRACK}?strict=true", site, json=event(email="nobody"))
    [bad] = body["details"]
    assert bad["@type"] == "type.googleapis.com/google.rpc.BadRequest"
    assert [violation["field"] for violation in bad["field_violations"]] == ["email"]


def accepted(mesh: Mesh, site: dict[str, str], path: str, body: Any) -> dict[str, Any]:
    """The answer to a call that is accepted."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = mesh.client.post(mesh.url + path, headers={**site, "content-type": "application/json"}, content=content)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_what_careless_senders_write_is_taken_and_said(mesh: Mesh, site: dict[str, str]) -> None:
    before = mesh.drained()
    local = datetime.now(UTC).replace(tzinfo=None).isoformat()
    single = accepted(mesh, site, TRACK, event(id=4711, metadata=[], timestamp=local, ip_address="unknown", total=1))
    assert (single["event_id"], single["ignored_fields"]) == ("4711", ["total"])
    assert [fault["field"] for fault in single["faults"]] == ["timestamp", "ip_address"]
    elements = [
        event(id="batch-1", page_title="x" * 501),
        None,
        event(id=4712, timestamp=round(time.time() * 1000)),
        {"event_type": "x", "timestamp": "never"},
    ]
    several = accepted(mesh, site, BATCH, {"events": elements})
    assert [verdict["success"] for verdict in several["results"]] == [True, False, True, False]
    assert [fault["field"] for fault in several["results"][0]["faults"]] == ["page_title"]
    broken = b'{"events": [{"event_type": "x", "timestamp": "' + local.encode() + b'Z", "page_title": "\\ud83d", "metadata": {"n": NaN}}]}'
    [verdict] = accepted(mesh, site, BATCH, broken)["results"]
    assert verdict["success"]
    assert {fault["field"] for fault in verdict["faults"]} == {"page_title", "metadata"}
    after = mesh.drained()
    assert (after["stored"] - before["stored"], after["rejected"] - before["rejected"], after["balanced"]) == (4, 2, True)


LEFT_OUT: dict[str, tuple[str, dict[str, Any], set[str]]] = {
    "event": (
        TRACK,
        event(email="nobody", page_title="x" * 501, utm_parameters={"campaign": "y" * 3000}),
        {"email", "page_title", "utm_parameters.campaign"},
    ),
    "purchase": (
        "/api/v1/purchases/track",
        {
            "order_id": "left-out",
            "user_id": 42,
            "amount": 10,
            "email": "ada@",
            "timestamp": round(time.time()),
            "payment_method": "x" * 51,
            "lines": [{"product_id": "a", "amount": 4}, {"product_id": "b", "product_name": "x" * 256, "amount": 6}],
        },
        {"email", "payment_method", "lines[1].product_name"},
    ),
    "registration": ("/api/v1/users/register", {"wordpress_id": 4343, "email": "ada", "first_name": "x" * 101}, {"email", "first_name"}),
    "touchpoint": (
        "/api/v1/journey/touchpoint",
        {"session_id": "s", "action": "a", "touchpoint": "t", "timestamp": round(time.time()), "campaign": "x" * 101},
        {"campaign"},
    ),
}


@pytest.mark.parametrize("record", LEFT_OUT)
def test_a_text_that_breaks_a_rule_is_left_out_and_its_record_kept(mesh: Mesh, site: dict[str, str], record: str) -> None:
    path, body, fields = LEFT_OUT[record]
    status, answer = refused(mesh, "POST", f"{path}?strict=true", site, json=body)
    assert status == 400
    broken = [violation["field"] for violation in answer["details"][0]["field_violations"]]
    assert all(any(path.endswith(field) for path in broken) for field in fields)
    answer = accepted(mesh, site, path, body)
    assert {fault["field"] for fault in answer["faults"]} == fields
    assert all(fault["description"].endswith(": left out") for fault in answer["faults"])
    assert answer["success"]


def test_what_is_left_may_not_be_enough(mesh: Mesh, site: dict[str, str]) -> None:
    lead = {"conversion_type": "lead", "timestamp": round(time.time())}
    status, body = refused(mesh, "POST", "/api/v1/conversions/track", site, json={**lead, "email": "nobody"})
    assert (status, "user_id, email or session_id is required" in json.dumps(body)) == (400, True)
    assert accepted(mesh, site, "/api/v1/conversions/track", {**lead, "email": "nobody", "session_id": "s"})["faults"]
    paid = {"order_id": "kept", "user_id": 42, "amount": 10, "timestamp": round(time.time()), "payment_status": "x" * 51}
    status, body = refused(mesh, "POST", "/api/v1/purchases/track", site, json=paid)
    assert (status, "payment_status" in json.dumps(body)) == (400, True)


ESSENTIAL: dict[str, tuple[str, dict[str, Any], str]] = {
    "event": (TRACK, event(platform=[]), "platform"),
    "purchase": (
        "/api/v1/purchases/track",
        {"order_id": "essential", "user_id": 42, "amount": 10, "timestamp": round(time.time()), "payment_status": []},
        "purchase.payment_status",
    ),
    "refund": (
        "/api/v1/purchases/essential/refunds",
        {"reference": 1, "amount": 4, "source": {}},
        "refund.source",
    ),
}


@pytest.mark.parametrize("record", ESSENTIAL)
def test_an_essential_text_that_cannot_be_read_refuses_its_record(mesh: Mesh, site: dict[str, str], record: str) -> None:
    path, body, field = ESSENTIAL[record]
    status, answer = refused(mesh, "POST", path, site, json=body)
    assert (status, answer["code"]) == (400, 3)
    assert {"field": field, "description": "is not a text"}.items() <= answer["details"][0]["field_violations"][0].items()


def test_an_essential_text_that_cannot_be_read_refuses_its_item_alone(mesh: Mesh, site: dict[str, str]) -> None:
    before = mesh.drained()
    events = [event(id="readable-1"), event(id="unreadable", platform=[]), event(id="readable-2", source=[])]
    answer = accepted(mesh, site, BATCH, {"events": events})
    assert [result["success"] for result in answer["results"]] == [True, False, True]
    assert [violation["field"] for violation in answer["results"][1]["violations"]] == ["platform"]
    assert [fault["field"] for fault in answer["results"][2]["faults"]] == ["source"]
    after = mesh.drained()
    assert (after["stored"] - before["stored"], after["rejected"] - before["rejected"], after["balanced"]) == (2, 1, True)


def test_strict_is_a_400_for_what_would_only_be_reported(mesh: Mesh, site: dict[str, str]) -> None:
    for path, body in ((TRACK, event(total=1)), ("/api/v1/purchases/track", {"order_id": "strict", "total": 9.5})):
        status, answer = refused(mesh, "POST", f"{path}?strict=true", site, json=body)
        assert status == 400
        assert "total" in json.dumps(answer)


def test_an_order_keeps_the_number_that_the_shop_gave_it(mesh: Mesh, site: dict[str, str]) -> None:
    for number in (727, "#1016", "2017/06/05-123", "WC 1016"):
        sale = {"order_id": number, "user_id": 42, "amount": "10.00", "currency": "EUR", "timestamp": round(time.time()), "total": 9}
        answer = accepted(mesh, site, "/api/v1/purchases/track", {**sale, "payment_status": "completed"})
        assert (answer["duplicate"], answer["ignored_fields"]) == (False, ["total"])
        path = mesh.url + "/api/v1/purchases/" + quote(str(number), safe="")
        shown = mesh.client.get(path, headers=site).json()["purchase"]
        assert (shown["order_id"], shown["purchase_id"], shown["amount"]) == (str(number), answer["purchase_id"], 10)
        paid_back = {"reference": 1, "amount": 4, "refunded_total": 4}
        assert mesh.client.post(f"{path}/refunds", headers=site, json=paid_back).json()["booked_amount"] == 4


@pytest.mark.parametrize("rpc", marked.rpcs(), ids=lambda rpc: rpc.name)
def test_no_refusal_repeats_what_was_sent(mesh: Mesh, rpc: MethodDescriptor) -> None:
    headers = {**mesh.credentials("admin"), "content-type": "application/json"}
    refusals = 0
    for call in marked.rest(rpc):
        answer = mesh.client.request(call.verb, mesh.url + call.path, headers=headers, content=call.body)
        assert answer.status_code < 500, (call.what, answer.text)
        refusals += answer.status_code >= 400
        if answer.status_code >= 400 or rpc.name in {"TrackEvents", "TrackPurchases", "RegisterUsers"}:
            assert marked.MARKER.lower() not in f"{answer.text}{answer.headers}".lower(), call.what
    metadata = tuple((name.lower(), value) for name, value in mesh.credentials("admin").items())
    with grpc.insecure_channel(mesh.url.removeprefix("http://")) as channel:
        path = f"/{rpc.containing_service.full_name}/{rpc.name}"
        call_native: Callable[..., bytes] = channel.unary_unary(path)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        for what, request in marked.native(rpc):
            try:
                call_native(request, metadata=metadata)
            except grpc.RpcError as refusal:
                refusals += 1
                error: Any = refusal
                assert error.code() not in {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}, what
                trailers = b"".join(value if isinstance(value, bytes) else value.encode() for _, value in error.trailing_metadata())
                assert marked.MARKER.lower().encode() not in (trailers + error.details().encode()).lower(), what
    assert refusals or rpc.name == "GetAccounting"


def test_too_much_is_a_413(mesh: Mesh, site: dict[str, str]) -> None:
    assert refused(mesh, "POST", TRACK, site, json=event(metadata={"text": "x" * 33_000}))[0] == 413
    assert refused(mesh, "POST", BATCH, site, json={"events": [event(metadata={"text": "x" * 3000}) for _ in range(400)]})[0] == 413


def test_a_batch_of_more_than_500_is_a_400(mesh: Mesh, site: dict[str, str]) -> None:
    status, body = refused(mesh, "POST", BATCH, site, json={"events": [event() for _ in range(501)]})
    assert status == 400
    assert "events" in json.dumps(body)


def test_ten_thousand_header_bytes_are_a_431(mesh: Mesh, site: dict[str, str]) -> None:
    assert refused(mesh, "POST", TRACK, {**site, "x-long": "x" * 10_000}, json=event())[0] == 431


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/v1/nothing"),
        ("GET", "/nothing"),
        ("POST", "/"),
        ("GET", TRACK),
        ("DELETE", BATCH),
        ("POST", "/api/v1/events/accounting"),
    ],
)
def test_an_unknown_path_or_method_is_a_404(mesh: Mesh, site: dict[str, str], method: str, path: str) -> None:
    assert refused(mesh, method, path, site)[0] == 404


def test_a_token_that_proves_nothing_is_a_401(mesh: Mesh, site: dict[str, str]) -> None:
    secret = json.loads((mesh.data / "secrets.json").read_text())["jwt_secrets"][0]
    now = int(time.time())
    claims: dict[str, Any] = {"iss": "pmp-wordpress-integration", "scope": "site", "id": "1", "iat": now, "exp": now + 600}

    def signed(key: str = secret, algorithm: str = "HS256", **changes: Any) -> str:
        changed = {name: value for name, value in {**claims, **changes}.items() if value is not None}
        return "Bearer " + jwt.encode(changed, key, algorithm=algorithm)

    wrong = {
        "signature": signed("another secret of the right length, isn't it?"),
        "expired": signed(iat=now - 7200, exp=now - 3600),
        "not yet valid": signed(nbf=now + 3000),
        "issuer": signed(iss="somebody else"),
        "no issuer": signed(iss=None),
        "no end": signed(exp=None),
        "alg none": "Bearer " + jwt.encode(claims, None, algorithm="none"),  # pyright: ignore[reportArgumentType]
        "garbage": "Bearer abc",
        "another scheme": "Basic YTpi",
    }
    for reason, authorization in wrong.items():
        status, body = refused(mesh, "POST", TRACK, {**site, "authorization": authorization}, json=event())
        assert (status, body["code"]) == (401, 16), reason
    missing = {name: value for name, value in site.items() if name != "authorization"}
    assert refused(mesh, "POST", TRACK, missing, json=event())[0] == 401
    assert refused(mesh, "POST", TRACK, {**site, "x-api-key": "wrong"}, json=event())[0] == 401


def test_a_track_token_neither_reads_nor_speaks_for_others(mesh: Mesh) -> None:
    track = mesh.credentials("track", "7")
    assert refused(mesh, "GET", "/api/v1/events/accounting", track)[0] == 403
    assert refused(mesh, "POST", TRACK, track, json=event(user_id="8"))[0] == 403
    assert mesh.client.post(mesh.url + TRACK, headers=track, json=event(user_id="7")).status_code == 200


def test_a_service_port_refuses_callers_without_the_meshs_credential(mesh: Mesh) -> None:
    with grpc.insecure_channel(mesh.state["service_addresses"]["ingestion"]) as channel:
        stub: Any = IngestionServiceStub(channel)
        for metadata in ((), (("x-pmp-mesh-token", "guess"),), (("x-pmp-scope", "admin"),)):
            with pytest.raises(grpc.RpcError) as raised:
                stub.GetAccounting(pb.GetAccountingRequest(), metadata=metadata)
            assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED  # pyright: ignore[reportAttributeAccessIssue]


def test_one_bad_event_of_a_batch_leaves_the_rest_stored(mesh: Mesh, site: dict[str, str]) -> None:
    before = mesh.drained()
    events = [event(id="neighbour-1"), event(id="broken", session_id="a b"), event(id="neighbour-2")]
    answer = mesh.client.post(mesh.url + BATCH, headers=site, json={"events": events}).json()
    assert [result["success"] for result in answer["results"]] == [True, False, True]
    assert answer["results"][1]["violations"][0]["field"] == "session_id"
    after = mesh.drained()
    assert (after["stored"] - before["stored"], after["rejected"] - before["rejected"], after["balanced"]) == (2, 1, True)


def test_the_same_event_now_and_a_day_later_is_one(mesh: Mesh, site: dict[str, str]) -> None:
    before = mesh.drained()
    yesterday = event(id="twice", timestamp=(datetime.now(UTC) - timedelta(days=1)).isoformat())
    for _ in range(3):
        assert mesh.client.post(mesh.url + TRACK, headers=site, json=yesterday).json()["event_id"] == "twice"
    after = mesh.drained()
    assert (after["stored"] - before["stored"], after["duplicate"] - before["duplicate"]) == (1, 2)


def test_another_content_under_the_same_id_is_set_aside_and_shown(mesh: Mesh, site: dict[str, str]) -> None:
    before = mesh.drained()
    for title in ("one", "two"):
        assert mesh.client.post(mesh.url + TRACK, headers=site, json=event(id="reused", page_title=title)).status_code == 200
    after = mesh.drained()
    assert (after["stored"] - before["stored"], after["dead_lettered"] - before["dead_lettered"], after["balanced"]) == (1, 1, True)
    mesh.environment["COLUMNS"] = "200"
    assert "another event is stored under this id" in mesh.pmp("dead-letters", "list", "ingestion").stdout


def test_the_21st_request_of_a_user_within_an_hour_waits_while_others_go_on(tmp_path_factory: pytest.TempPathFactory) -> None:
    with running(tmp_path_factory.mktemp("limited"), environment={"PMP_RATE_USER_PER_HOUR": "20"}) as mesh:
        busy, other = mesh.credentials("track", "1"), mesh.credentials("track", "2")
        answers = [mesh.client.post(mesh.url + TRACK, headers=busy, json=event()) for _ in range(21)]
        assert [answer.status_code for answer in answers] == [200] * 20 + [429]
        assert int(answers[-1].headers["retry-after"]) > 0
        assert set(answers[-1].json()) == {"code", "message", "details"}
        assert mesh.client.post(mesh.url + TRACK, headers=other, json=event()).status_code == 200
        assert mesh.drained()["stored"] == 21
