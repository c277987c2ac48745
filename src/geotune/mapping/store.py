"""The output folder of a map: a local folder, or one on an object store through fsspec.

Readers see a file whole or not at all. On a disk it is written under a temporary name, synced and
renamed; on an object store a put is atomic, and `create` is a conditional put.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from geotune.errors import GeotuneError, OutputError
from geotune.utils.atomic import make_folder, sync_to_disk, write_atomically


class Store(Protocol):
    """Files by their names, such as `tiles/a/0_0.tif`.

    Attributes:
        root: the folder, as the user named it.
        local: the folder, if it is on this machine or mounted.
    """

    root: str
    local: Path | None

    def read(self, name: str) -> bytes:
        """The content of a file. Raises `FileNotFoundError`."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Write a file, in place of one that exists."""
        ...

    def create(self, name: str, data: bytes) -> bool:
        """Write a file unless it exists; of several processes, one succeeds. Returns whether."""
        ...

    def sizes(self, folder: str) -> dict[str, int]:
        """The bytes of all files below a folder by name; empty if there is no such folder."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        ...

    def staging(self, folder: str) -> Any:
        """A context with a local folder, whose files are in `folder` once it ends."""
        ...


def open_store(root: str) -> Store:
    """The store at a path or URL. Raises `GeotuneError` if its package is missing."""
    return ObjectStore(root) if "://" in root else LocalStore(root)


def sha256(data: bytes) -> str:
    """The hash of a file's content."""
    return hashlib.sha256(data).hexdigest()


def read_json(store: Store, name: str) -> dict[str, Any] | None:
    """The object in a JSON file; None if the file is missing or damaged."""
    try:
        values = json.loads(store.read(name))
    except (FileNotFoundError, ValueError):
        return None
    return values if isinstance(values, dict) else None


class LocalStore:
    """A folder of a file system."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.local: Path | None = Path(root).absolute()
        self._folder = self.local

    def read(self, name: str) -> bytes:
        """See `Store`."""
        return (self._folder / name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        """See `Store`."""
        write_atomically(self._folder / name, data)

    def create(self, name: str, data: bytes) -> bool:
        """See `Store`."""
        path = self._folder / name
        make_folder(path.parent)
        descriptor, temporary = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            sync_to_disk(Path(temporary))
            os.link(temporary, path)  # unlike a rename, fails if the file exists
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno in (errno.EPERM, errno.EOPNOTSUPP) and not path.exists():
                write_atomically(path, data)  # a file system without links
                return True
            raise OutputError(
                f"{path}: cannot be written ({error.strerror}); choose another folder, or free "
                "disk space",
                file=path,
                reason=error.strerror or "",
            ) from error
        finally:
            with suppress(OSError):
                os.unlink(temporary)
        return True

    def sizes(self, folder: str) -> dict[str, int]:
        """See `Store`."""
        found = {}
        waiting = [self._folder / folder]
        while waiting:
            with suppress(FileNotFoundError), os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir():
                        waiting.append(Path(entry.path))
                    else:
                        with suppress(FileNotFoundError):  # a temporary one of another process
                            name = Path(entry.path).relative_to(self._folder).as_posix()
                            found[name] = entry.stat().st_size
        return found

    def remove(self, name: str) -> None:
        """See `Store`."""
        (self._folder / name).unlink(missing_ok=True)

    @contextmanager
    def staging(self, folder: str) -> Iterator[Path]:
        """See `Store`: the folder itself, as its files are written atomically."""
        yield self._folder / folder


class ObjectStore:
    """A folder of an object store, or of any other file system of fsspec."""

    def __init__(self, root: str) -> None:
        self.root = root.rstrip("/")
        self.local: Path | None = None
        try:
            core: Any = import_module("fsspec.core")
            self._fs, self._folder = core.url_to_fs(self.root)
        except (ImportError, ValueError) as error:
            raise GeotuneError(
                f"--out {root}: needs another package ({error}); pip install 'geotune[map]' and "
                "the package that fsspec names, such as s3fs",
                code="dependency-missing",
                key="--out",
            ) from error
        self._makes_folders = "file" in getattr(self._fs, "protocol", ())

    def read(self, name: str) -> bytes:
        """See `Store`."""
        with self._errors(name):
            content: bytes = self._fs.cat_file(self._path(name))
        return content

    def write(self, name: str, data: bytes) -> None:
        """See `Store`."""
        self._put(name, data, "overwrite")

    def create(self, name: str, data: bytes) -> bool:
        """See `Store`."""
        try:
            self._put(name, data, "create")
        except FileExistsError:
            return False
        return True

    def sizes(self, folder: str) -> dict[str, int]:
        """See `Store`."""
        with self._errors(folder), suppress(FileNotFoundError):
            self._fs.invalidate_cache()
            found = self._fs.find(self._path(folder), detail=True)
            return {
                path.removeprefix(self._folder).lstrip("/"): int(info["size"] or 0)
                for path, info in found.items()
            }
        return {}

    def remove(self, name: str) -> None:
        """See `Store`."""
        with self._errors(name), suppress(FileNotFoundError):
            self._fs.rm_file(self._path(name))

    @contextmanager
    def staging(self, folder: str) -> Iterator[Path]:
        """See `Store`: a temporary folder, which is then uploaded."""
        with tempfile.TemporaryDirectory(prefix="geotune-") as temporary:
            yield Path(temporary)
            for path in sorted(p for p in Path(temporary).rglob("*") if p.is_file()):
                name = f"{folder}/{path.relative_to(temporary).as_posix()}"
                self.write(name, path.read_bytes())

    def _put(self, name: str, data: bytes, mode: str) -> None:
        path = self._path(name)
        with self._errors(name):
            if self._makes_folders:
                self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._fs.pipe_file(path, data, mode=mode)

    def _path(self, name: str) -> str:
        return f"{self._folder.rstrip('/')}/{name}" if name else self._folder

    @contextmanager
    def _errors(self, name: str) -> Iterator[None]:
        """Turn errors into `OutputError`, other than those of missing and existing files."""
        try:
            yield
        except (FileNotFoundError, FileExistsError, GeotuneError):
            raise
        except Exception as error:
            # the packages of stores raise errors of their own types
            raise OutputError(
                f"{self.root}/{name}: the store refuses it ({type(error).__name__}: {error}); "
                "check the address, the rights and the space",
                reason=str(error),
            ) from error
