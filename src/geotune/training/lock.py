"""Exclusive access to a run folder."""

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
"""The locked file; it is never removed, because removing it would let two processes in."""
LOCKED_ERRNOS = (errno.EACCES, errno.EAGAIN)


@contextmanager
def exclusive_lock(
    folder: Path, on_message: Callable[[str], None] = lambda text: None, *, key: str = "train.run"
) -> Iterator[None]:
    """Lock a folder for this process inside the context; creates the folder if needed.

    The lock is a POSIX file lock, which most network file systems support. It ends with this
    process, however that ends, and forked workers do not inherit it. A process must not lock the
    same folder twice, because the second release would also end the first lock.

    Args:
        folder: to lock.
        on_message: receives a note if an earlier holder was interrupted, or if the file system
            does not support locks.
        key: what names the folder, for messages.

    Raises `GeotuneError`, with the holder, if another process holds the lock.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK_FILE).open("a+", encoding="utf-8")
    except OSError as error:
        raise GeotuneError(
            f"{folder}: cannot be written ({error.strerror}); choose another {key}",
            code="output-not-writable",
            key=key,
            file=folder,
        ) from error
    with file:
        locked = _lock(file, folder, key)
        before = _holder(folder, file.fileno()) if os.fstat(file.fileno()).st_size else ""
        if not locked:
            on_message(
                f"note: {folder}: the file system does not support locks; make sure that no other "
                f"process uses the folder{f': {before} may' if before else ''}"
            )
        elif before:
            on_message(f"note: {folder}: {before} was interrupted there")
        file.truncate(0)
        since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        json.dump({"process": os.getpid(), "host": platform.node(), "since": since}, file)
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def _lock(file: IO[str], folder: Path, key: str) -> bool:
    """Take the lock; false if the file system does not support locks."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in LOCKED_ERRNOS:
            return False
        raise GeotuneError(
            f"{folder}: in use by {_holder(folder)}; wait until it has finished, or choose another "
            f"{key}",
            code="run-in-use",
            key=key,
            file=folder,
        ) from error
    return True


def _holder(folder: Path, descriptor: int | None = None) -> str:
    """The process that holds or held a folder, as written in the lock file."""
    try:
        text = (
            (folder / LOCK_FILE).read_bytes()
            if descriptor is None
            else os.pread(descriptor, 4096, 0)
        )
        holder = json.loads(text)
        return f"process {holder['process']} on {holder['host']} (since {holder['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
