"""Write files atomically."""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from geotune.errors import OutputError


def make_folder(path: Path) -> None:
    """Create a folder for outputs, with its parents. Raises `OutputError` if that is refused."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{path}: the folder cannot be created ({error.strerror}); choose another one",
            file=path,
            reason=error.strerror or "",
        ) from error


def sync_to_disk(path: Path) -> None:
    """Wait until the content of a file is stored, so that a power failure cannot truncate it."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write a file to, which then replaces `path`.

    Readers of `path` see either the old or the complete new file. Raises `OutputError`, also for an
    `OSError` in the context that is about no other file.
    """
    incomplete = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_writable(path, error) from error
    try:
        yield incomplete
        sync_to_disk(incomplete)
        incomplete.replace(path)
    except OSError as error:
        if isinstance(error, OutputError) or error.filename not in (None, str(incomplete)):
            raise
        raise _not_writable(path, error) from error
    finally:
        with suppress(OSError):  # of a folder that cannot be written, too
            incomplete.unlink(missing_ok=True)


@contextmanager
def staging_folder(parent: Path) -> Iterator[Path]:
    """A hidden folder for incomplete files, removed at the end.

    Also removes those that killed processes of this machine left in `parent`. A folder is in use
    while its process holds a lock on it; where the file system has no locks, none is removed.
    Raises `OSError` if none can be created.
    """
    prefix, suffix = f".{platform.node()}-", ".partial"
    for abandoned in parent.glob(f"{prefix}*{suffix}"):
        with suppress(OSError):
            # one that was just created may not be locked yet
            if time.time() - abandoned.stat().st_mtime > 60:
                with _locked(abandoned):
                    shutil.rmtree(abandoned)
    staging = Path(tempfile.mkdtemp(prefix=prefix, suffix=suffix, dir=parent))
    try:
        with ExitStack() as lock:
            with suppress(OSError):
                lock.enter_context(_locked(staging))
            yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock a folder; raises `OSError` if it is locked already, or if there are no locks."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def check_writable(path: Path) -> None:
    """Raise `OutputError` if a file cannot be written to `path`, before the work for it starts."""
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; expected a file: name one in it", file=path)
    if path.exists() and not path.is_file():
        raise OutputError(f"{path}: is a device or pipe; expected a file", file=path)
    folder = path.parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise OutputError(f"{path}: {folder} is a file; choose a path in a folder", file=path)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{path}: {folder} is not writable; choose another folder", file=path)


def _not_writable(path: Path, error: OSError) -> OutputError:
    reason = error.strerror or str(error)
    return OutputError(
        f"{path}: cannot be written ({reason}); choose another folder, or free disk space",
        file=path,
        reason=reason,
    )


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path`; readers see either the old or the complete new file."""
    with replacing(path) as incomplete:
        incomplete.write_bytes(data)
