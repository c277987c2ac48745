"""One process at a time in a run folder."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO

from geotune.errors import GeotuneError

LOCK_FILE = ".lock"
"""The file in a run folder that is locked; it stays, for who removed it would let two others in."""
LOCKED_ERRNOS = (errno.EACCES, errno.EAGAIN)


@contextmanager
def exclusive_lock(
    folder: Path, on_message: Callable[[str], None] = lambda text: None
) -> Iterator[None]:
    """While it is open, no other process may hold the folder, which is made where it is not there.

    The lock is the system's own on the file (POSIX, which most network file systems keep, too): it
    ends with this process however that ends, and forked workers do not get it. Of a holder that
    did not end in order, and of file systems without locks, `on_message` gets a line. One process may
    hold a folder once only: it would lose the lock by trying again. Raises `GeotuneError` that
    names the holder where there is one.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK_FILE).open("a+", encoding="utf-8")
    except OSError as error:
        raise GeotuneError(f"{folder}: cannot be written ({error.strerror})") from error
    with file:
        locked = _lock(file, folder)
        before = _holder(folder, file.fileno()) if os.fstat(file.fileno()).st_size else ""
        if not locked:
            on_message(
                f"note: {folder}: its file system has no locks; see to it that no other process "
                f"works there{f': {before} may' if before else ''}"
            )
        elif before:
            on_message(f"note: {folder}: {before} has ended there unfinished")
        file.truncate(0)
        since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        json.dump({"process": os.getpid(), "host": platform.node(), "since": since}, file)
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def _lock(file: IO[str], folder: Path) -> bool:
    """Take the lock; false where the file system has none."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in LOCKED_ERRNOS:
            return False
        raise GeotuneError(
            f"{folder}: {_holder(folder)} is at work there; wait until it has ended, or choose "
            "another train.run"
        ) from error
    return True


def _holder(folder: Path, descriptor: int | None = None) -> str:
    """What is written of the process that holds, or held, a folder."""
    try:
        text = (
            (folder / LOCK_FILE).read_bytes()
            if descriptor is None
            else os.pread(descriptor, 4096, 0)
        )
        found = json.loads(text)
        return f"process {found['process']} on {found['host']}, since {found['since']},"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
