"""Secrets that change while Envoy runs: the filters that hold them are files, which Envoy reads again when they are replaced.

Where secrets come from files (`PMP_SECRETS_DIR`), the process that becomes Envoy leaves a small one beside it, which waits for the
folder to change and then writes those filters anew. Without such a folder there is neither.

Envoy's side of it: https://www.envoyproxy.io/docs/envoy/latest/configuration/overview/extension#extension-config-discovery-service-ecds.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from inotify_simple import INotify, flags
from pydantic import ValidationError

from gateway.patterns import Node, fill, read_base
from gateway.render import secrets
from gateway.settings import GatewaySettings
from kit.settings import MESH_HEADER

_FILTERS: Final = ("envoy.filters.http.api_key_auth", "envoy.filters.http.jwt_authn")
_CHANGED: Final = flags.CLOSE_WRITE | flags.MOVED_TO | flags.MOVED_FROM | flags.DELETE | flags.ATTRIB
"""A secret was written, replaced or removed, or may be read by others than before."""
_SECONDS: Final = 0.2
"""How long further changes are waited for after the first one: a secret of Kubernetes is replaced in several steps."""


def take_secrets(config: Node, settings: GatewaySettings) -> Mapping[Path, str]:
    """Takes the filters with secrets out of a rendered configuration, which reads them from files from then on.

    Args:
        config: of Envoy.
        settings: the settings that it was rendered from.

    Returns:
        The files with their contents.
    """
    patterns, jwks = read_base()["patterns"], secrets(settings)["PMP_JWKS"]
    files: dict[Path, str] = {}
    for manager in _managers(config):
        token = fill(patterns["mesh_token"], {"token": settings.mesh_tokens[0].replace("%", "%%")})
        manager["http_filters"].insert(-1, token)
        for host in manager["route_config"]["virtual_hosts"]:
            host["request_headers_to_add"] = [each for each in host["request_headers_to_add"] if each["header"]["key"] != MESH_HEADER]
        for position, each in enumerate(manager["http_filters"]):
            if each["name"] in {*_FILTERS, token["name"]}:
                for provider in each["typed_config"].get("providers", {}).values():
                    provider["local_jwks"] = {"inline_string": jwks}
                path = _folder(settings) / f"{each['name']}.json"
                files[path] = _resource(each)
                names = {"name": each["name"], "path": str(path), "type": each["typed_config"]["@type"]}
                manager["http_filters"][position] = fill(patterns["followed"], names)
    return files


def write(files: Mapping[Path, str]) -> None:
    """Replaces files at once, each as a whole; only this user may read them."""
    for path, text in files.items():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        written = path.with_suffix(".new")
        written.touch(mode=0o600)
        written.write_text(text)
        written.replace(path)


class Follower:
    """Waits for changes of the folder of secrets, beside the Envoy that the process becomes.

    What changes from now on is noticed. Where a secret is missing that is required, the filters from before stay.
    """

    def __init__(self, folder: Path) -> None:
        self._changes = INotify()
        self._changes.add_watch(folder, _CHANGED)

    def fork(self, renew: Callable[[], None]) -> None:
        """Starts a process that calls `renew` after each change, and ends with this one, also if this one becomes another program."""
        ended, alive = os.pipe()
        if os.fork() == 0:
            os.close(alive)
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
            try:
                self._follow(ended, renew)
            finally:
                os._exit(0)
        os.close(ended)
        os.set_inheritable(alive, True)
        self._changes.close()

    def _follow(self, ended: int, renew: Callable[[], None]) -> None:
        while True:
            ready, _, _ = select.select([self._changes, ended], [], [])
            if ended in ready:
                return
            time.sleep(_SECONDS)
            self._changes.read(timeout=0)
            _attempt(renew)


def _attempt(renew: Callable[[], None]) -> None:
    try:
        renew()
    except ValidationError as error:
        # The values are secret.
        names = sorted({f"PMP_{'.'.join(map(str, each['loc']))}".upper() for each in error.errors(include_input=False)})
        _say("changed secrets refused", names=names)
    except Exception as error:  # noqa: BLE001  (those before stay, whatever is wrong)
        _say("changed secrets refused", error=type(error).__name__)
    else:
        _say("secrets changed")


def _say(event: str, **fields: object) -> None:
    with suppress(OSError):
        print(json.dumps({"event": event, **fields}), file=sys.stderr, flush=True)  # noqa: T201  (the log of the gateway)


def _managers(config: Node) -> Iterator[Node]:
    """The HTTP connection managers that know callers."""
    for listener in config["static_resources"]["listeners"]:
        for chain in listener["filter_chains"]:
            for each in chain["filters"]:
                manager = each["typed_config"]
                if any(one["name"] in _FILTERS for one in manager["http_filters"]):
                    yield manager


def _folder(settings: GatewaySettings) -> Path:
    return Path(settings.gateway_admin).with_suffix(".secrets")


def _resource(named: Node) -> str:
    """A response of the discovery service of extensions."""
    kind = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"
    return json.dumps({"resources": [{"@type": kind, **named}]})
