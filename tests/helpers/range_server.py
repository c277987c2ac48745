"""A file server on this machine that answers range requests and lists folders."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote


@dataclass
class FileServer:
    """A running server.

    Attributes:
        url: of its folder.
        requests: method, path and range of each.
        sent: bytes of files.
        status: the answer to every request, an error; None answers with the files.
    """

    url: str
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    sent: int = 0
    status: int | None = None


@contextmanager
def serving_files(folder: Path) -> Iterator[FileServer]:
    """Serve a folder; `status` of the server answers every request with an error."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def answer(self) -> None:
            spec = self.headers.get("Range", "")
            state.requests.append((self.command, self.path, spec))
            path = folder / unquote(self.path.partition("?")[0]).lstrip("/")
            status, kind, headers, body = 200, "application/octet-stream", {}, b""
            if state.status is not None:
                status = state.status
            elif path.is_dir():
                kind = "text/html"
                body = "".join(f'<a href="{p.name}">x</a>' for p in path.iterdir()).encode()
            elif path.is_file():
                body = path.read_bytes()
                headers = {"Accept-Ranges": "bytes", "ETag": f'"{path.stat().st_mtime_ns}"'}
                if spec.startswith("bytes="):
                    first, _, last = spec.removeprefix("bytes=").partition("-")
                    start, end = int(first), min(int(last or len(body) - 1), len(body) - 1)
                    if start >= len(body):
                        status, body = 416, b""
                    else:
                        headers["Content-Range"] = f"bytes {start}-{end}/{len(body)}"
                        status, body = 206, body[start : end + 1]
                if self.command == "GET":
                    state.sent += len(body)
            else:
                status = 404
            self.send_response(status)
            for name, value in {**headers, "Content-Type": kind}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        state = FileServer(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()
