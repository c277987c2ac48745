"""The server of the map, for this machine only.

It listens on 127.0.0.1. Every address starts with a random token, so that other users of the
machine cannot read the images. A browser is opened with another address, which works once: others
can read its command line. Requests that name another host are refused, so that a page of the
web cannot reach the server through a name of its own (DNS rebinding). Files are addressed by
number, never by name.
"""

from __future__ import annotations

import errno
import hmac
import logging
import math
import re
import secrets
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from geotune.errors import GeotuneError
from geotune.view.content import MapContent
from geotune.view.map_grid import Tile
from geotune.view.pages import Pages, Reply, not_found

HOST = "127.0.0.1"

MAX_TARGET = 1024
"""Longer addresses are refused."""

IDLE_SECONDS = 60
"""Connections that are silent for longer are closed."""

HEADERS = {
    # no network, no inline code, no frames
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'; "
        "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # it would tell the token
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}

_NUMBER = r"([0-9]{1,8})"
_TILE = re.compile(rf"tiles/{_NUMBER}/{_NUMBER}/[0-9]{{1,20}}/{_NUMBER}/{_NUMBER}/{_NUMBER}\.png")
_FEATURES = re.compile(rf"features/{_NUMBER}/{_NUMBER}/[0-9]{{1,20}}\.json")
_SCENE = re.compile(rf"scenes/{_NUMBER}")
_AT = re.compile(rf"scenes/{_NUMBER}/at")
_WINDOW = re.compile(rf"windows/{_NUMBER}")
_PREDICT = re.compile(rf"scenes/{_NUMBER}/predict")


class MapServer(ThreadingHTTPServer):
    """Serves a map until it is shut down.

    Args:
        content: what is shown.
        port: 0 takes a free one.

    Raises `GeotuneError` for a port that is taken or may not be used.
    """

    daemon_threads = True
    allow_reuse_address = True
    block_on_close = False
    request_queue_size = 128  # connections that wait for a thread; the system drops more

    def __init__(self, content: MapContent, port: int = 0) -> None:
        self.pages = Pages(content)
        self.token = secrets.token_urlsafe(16)
        self._key, self._key_taken = secrets.token_urlsafe(16), threading.Lock()
        try:
            super().__init__((HOST, port), _Handler)
        except OverflowError as error:
            raise GeotuneError(
                f"--port: found {port}, expected 0 to 65535", code="option-invalid"
            ) from error
        except OSError as error:
            reason = {
                errno.EADDRINUSE: "is taken by another program",
                errno.EACCES: "may only be used by the administrator",
            }.get(error.errno or 0, f"cannot be used ({error.strerror})")
            raise GeotuneError(
                f"--port: {port} {reason}; choose another, or 0 for a free one",
                code="port-unavailable",
            ) from error

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self.server_address[1])

    @property
    def address(self) -> str:
        """The address to open in a browser."""
        return f"http://{HOST}:{self.port}/{self.token}/"

    @property
    def opening_address(self) -> str:
        """An address that leads to `address` at the first request, and nowhere afterwards."""
        return f"http://{HOST}:{self.port}/{self._key}/"

    def take_key(self, key: str) -> bool:
        """Whether `key` is that of `opening_address`; it is used up then."""
        same = hmac.compare_digest(key.encode(), self._key.encode())
        return same and self._key_taken.acquire(blocking=False)

    @property
    def hosts(self) -> tuple[str, ...]:
        """What a request may name as its host."""
        return f"{HOST}:{self.port}", f"localhost:{self.port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that closes a connection is no error; others are shown by --log-level debug."""
        del request, client_address
        logging.getLogger("geotune").debug("connection failed", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections stay open, and with them the files of a thread
    server_version = "geotune"
    sys_version = ""
    timeout = IDLE_SECONDS
    server: MapServer

    def do_GET(self) -> None:
        self._reply(self._answer("GET"))

    def do_HEAD(self) -> None:
        self._reply(self._answer("GET"))

    def do_POST(self) -> None:
        if self.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in self.headers:
            self.close_connection = True  # its body is not read
            return self._reply(Reply(413, "text/plain", b"no body is expected"))
        return self._reply(self._answer("POST"))

    def _answer(self, method: str) -> Reply:
        if self.headers.get("Host", "") not in self.server.hosts:
            self.close_connection = True
            return Reply(421, "text/plain", b"this server answers for 127.0.0.1 and localhost only")
        if len(self.path) > MAX_TARGET:
            return Reply(414, "text/plain", b"address too long")
        # a page of another site may not start anything, whatever it knows
        origin = self.headers.get("Origin")
        if origin is not None and origin not in [f"http://{host}" for host in self.server.hosts]:
            return Reply(403, "text/plain", b"another site may not use this server")
        try:
            url = urlsplit(self.path)
            _, token, rest = url.path.split("/", 2)
        except ValueError:
            return not_found()
        if self.command == "GET" and not rest and self.server.take_key(token):
            return Reply(303, "text/plain", b"", location=f"/{self.server.token}/")
        if not hmac.compare_digest(token.encode(), self.server.token.encode()):
            return Reply(
                404, "text/plain", b"not found: open the address that geotune view printed"
            )
        try:
            return self._route(method, rest, url.query)
        except Exception:
            logging.getLogger("geotune").debug("request failed", exc_info=True)
            return Reply(
                500, "text/plain", b"unexpected error: run geotune view with --log-level debug"
            )

    def _route(self, method: str, rest: str, query: str) -> Reply:
        pages = self.server.pages
        if match := _PREDICT.fullmatch(rest):
            if method != "POST":
                return Reply(405, "text/plain", b"expected POST")
            return pages.start_prediction(int(match[1]))
        if method != "GET":
            return Reply(405, "text/plain", b"expected GET")
        if match := _TILE.fullmatch(rest):
            scene, layer, z, x, y = map(int, match.groups())
            return pages.tile(scene, layer, Tile(z, x, y))
        if match := _FEATURES.fullmatch(rest):
            return pages.features(int(match[1]), int(match[2]))
        if match := _AT.fullmatch(rest):
            place = _place(query)
            return (
                Reply(400, "text/plain", b"expected lon and lat")
                if place is None
                else pages.at(int(match[1]), *place)
            )
        if match := _SCENE.fullmatch(rest):
            return pages.scene(int(match[1]))
        if match := _WINDOW.fullmatch(rest):
            return pages.window(int(match[1]))
        if rest == "overview":
            return pages.overview()
        if rest == "prediction":
            return pages.prediction()
        return pages.static(rest)

    def _reply(self, reply: Reply) -> None:
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.type)
        self.send_header("Content-Length", str(len(reply.body)))
        keep = "private, max-age=3600" if reply.lasting and reply.status == 200 else "no-store"
        self.send_header("Cache-Control", keep)
        if reply.location:
            self.send_header("Location", reply.location)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Errors of the protocol, in one line instead of a page."""
        del explain
        self.close_connection = True
        if self.request_version == "HTTP/0.9":
            self.request_version = "HTTP/1.0"
        self.command = self.command or "GET"
        self._reply(Reply(code, "text/plain; charset=utf-8", (message or "error").encode()))

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are shown by --log-level debug only, without the token."""
        text = (format % args).replace(self.server.token, "...")
        logging.getLogger("geotune").debug("%s", text)


def _place(query: str) -> tuple[float, float] | None:
    """Longitude and latitude of a query; None unless both are finite numbers."""
    try:
        values = parse_qs(query, max_num_fields=4)
        lon, lat = float(values["lon"][0]), float(values["lat"][0])
    except (KeyError, ValueError):
        return None
    return (lon, lat) if math.isfinite(lon) and math.isfinite(lat) else None
