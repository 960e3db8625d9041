"""The browser of the desktop on which `pmp` runs."""

from __future__ import annotations

import os
import sys
import webbrowser
from collections.abc import Mapping

_DESKTOPS = ("DISPLAY", "WAYLAND_DISPLAY")


def open_in_browser(url: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Opens a page if somebody is there to see it: in a terminal on a desktop. Returns whether a browser was found.

    Without a desktop, a browser in the terminal would take its place.
    """
    has_desktop = sys.platform == "darwin" or any(environ.get(name) for name in _DESKTOPS)
    return has_desktop and sys.stdout.isatty() and webbrowser.open(url)
