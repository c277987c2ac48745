"""A served folder of predictions."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from geotune.view.content import MapContent
from geotune.view.open_content import open_content
from geotune.view.server import HOST, MapServer
from helpers.view_folder import write_folder


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """Asks a server over HTTP, with any headers."""

    def __init__(self, server: MapServer) -> None:
        self.server = server

    def ask(
        self, path: str, method: str = "GET", *, token: bool = True, body: bytes | None = None,
        **headers: str,
    ) -> Answer:  # fmt: skip
        connection = HTTPConnection(HOST, self.server.port, timeout=60)
        target = f"/{self.server.token}/{path}" if token else path
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        headers = {"Host": f"{HOST}:{self.server.port}", **headers}
        if body is not None:
            headers["Content-Length"] = str(len(body))
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        response = connection.getresponse()
        answer = Answer(response.status, dict(response.getheaders()), response.read())
        connection.close()
        return answer


@contextmanager
def serving(content: MapContent) -> Iterator[Client]:
    with MapServer(content) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield Client(server)
        server.shutdown()
        thread.join()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Client]]:
    """Serves folders until the test ends."""
    contexts: list[Any] = []

    def start(*folders: Path, **options: Any) -> Client:
        (tmp_path / "predictions").mkdir(exist_ok=True)
        context = serving(open_content(folders, tmp_path / "predictions", **options))
        contexts.append(context)
        client: Client = context.__enter__()
        return client

    yield start
    for context in contexts:
        context.__exit__(None, None, None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`write_folder`, for tests that only read it."""
    return write_folder(tmp_path_factory.mktemp("view"))
