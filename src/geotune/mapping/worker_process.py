"""A process of workers: loads the libraries once, and forks a worker at each request.

`python -m geotune.mapping.worker_process FD`: `FD` is a socket of the driver, over which each
request carries the socket of the new worker. A worker answers one JSON line with another. All
processes end when the driver does, as the system closes its sockets.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import sys
import threading
from importlib import import_module
from typing import Any

from geotune.errors import GeotuneError
from geotune.mapping.actor import Actor
from geotune.utils.remote import stay_without_servers


def serve(control: socket.socket) -> None:
    """Fork a worker for each socket that arrives, until the driver ends."""
    stay_without_servers()
    import_module("geotune.mapping.tile_worker")
    import_module("geotune.factory.build_model")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system reaps the workers
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not message:
            return
        with socket.socket(fileno=descriptors[0]) as connection:
            if os.fork() == 0:
                control.close()
                try:
                    work(connection)
                finally:
                    os._exit(0)


def work(connection: socket.socket) -> None:
    """Answer the requests of a driver; the first one starts the worker."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    lines: queue.Queue[bytes] = queue.Queue()
    threading.Thread(target=_read, args=(connection, lines), daemon=True).start()
    actor: Actor | None = None
    while True:
        request = json.loads(lines.get())
        try:
            if actor is None:
                actor = Actor(request)
                answer: dict[str, Any] = {"ready": os.getpid()}
            else:
                answer = actor.ask(request)
        except GeotuneError as error:
            file = None if error.file is None else str(error.file)
            answer = {"raised": str(error), "code": error.code, "key": error.key, "file": file}
        except OSError as error:
            where = error.filename or "a worker"
            answer = {"raised": f"{where}: {error.strerror or error}", "code": "file-access"}
        except Exception as error:
            answer = {"raised": f"unexpected {type(error).__name__}: {error}", "code": "internal"}
        connection.sendall(json.dumps(answer).encode() + b"\n")


def _read(connection: socket.socket, lines: queue.Queue[bytes]) -> None:
    """Read requests, also while a tile is computed, to end at once with the driver."""
    try:
        with connection.makefile("rb") as stream:
            for line in stream:
                lines.put(line)
    finally:  # also if the driver ended before it had read an answer, which resets the connection
        os._exit(1)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver handles Ctrl+C
    serve(socket.socket(fileno=int(sys.argv[1])))
