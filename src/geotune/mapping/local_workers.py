"""Worker processes on this machine."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import geotune
from geotune.errors import ERROR_CODES, GeotuneError
from geotune.mapping.workers import WorkerLostError, WorkerOptions


class LocalWorkers:
    """Starts workers in processes of their own.

    Args:
        options: of the workers.
    """

    def __init__(self, options: WorkerOptions) -> None:
        self._options = options
        self._nursery: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  open as long as the workers
        self._lock = threading.Lock()

    def start(self, number: int) -> LocalWorker:
        """Start the worker of a number. Raises `WorkerLostError` if it ends before it is ready."""
        ours, theirs = socket.socketpair()
        try:
            with theirs, self._lock:
                control = self._running_nursery()
                socket.send_fds(control, [b"w"], [theirs.fileno()])
        except OSError as error:
            ours.close()
            raise WorkerLostError(self._last_error()) from error
        worker = LocalWorker(ours)
        try:
            worker.ask(asdict(replace(self._options, number=number)))
        except WorkerLostError as error:
            raise WorkerLostError(self._last_error()) from error
        return worker

    def close(self) -> None:
        """End all workers."""
        with self._lock:
            if self._control is not None:
                self._control.close()
                self._control = None
            if self._nursery is not None:
                self._nursery.kill()
                self._nursery.wait()
                self._nursery = None
        self._errors.close()

    def _running_nursery(self) -> socket.socket:
        """The socket of the process that forks workers, started if it is not there."""
        if self._nursery is not None and self._nursery.poll() is None and self._control:
            return self._control
        # the process must import this copy of geotune, not an installed one
        roots = [str(Path(geotune.__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, roots))}
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            environment[name] = str(self._options.threads)
        if self._control is not None:
            self._control.close()
        self._control, theirs = socket.socketpair()
        with theirs:
            self._nursery = subprocess.Popen(
                [sys.executable, "-m", "geotune.mapping.worker_process", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                env=environment,
                start_new_session=True,  # Ctrl+C is for the driver
            )
        return self._control

    def _last_error(self) -> str:
        """The last line that a worker wrote to standard error."""
        with suppress(OSError, ValueError):
            end = self._errors.seek(0, os.SEEK_END)
            self._errors.seek(max(0, end - 4096))
            lines = self._errors.read().decode(errors="replace").strip().splitlines()
            return lines[-1] if lines else ""
        return ""


class LocalWorker:
    """A worker, and its answers over a socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._answers = connection.makefile("rb")

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Have a request answered. Raises `WorkerLostError` if the worker ends before."""
        try:
            self._connection.sendall(json.dumps(request).encode() + b"\n")
            line = self._answers.readline()
        except OSError as error:
            raise WorkerLostError(str(error)) from error
        if not line.endswith(b"\n"):
            raise WorkerLostError("")
        answer: dict[str, Any] = json.loads(line)
        if "raised" in answer:
            raise as_error(answer)
        return answer

    def close(self) -> None:
        """End the worker."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._answers.close()
        self._connection.close()


def as_error(answer: dict[str, Any]) -> Exception:
    """The error that a worker raised."""
    if answer["code"] not in ERROR_CODES:
        return RuntimeError(f"a worker: {answer['raised']}")
    return GeotuneError(
        answer["raised"], code=answer["code"], key=answer.get("key"), file=answer.get("file")
    )
