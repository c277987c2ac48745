"""Files on servers: `https://`, `s3://` and `gs://`, read only, and only where it is allowed.

A recipe or an adapter of somebody else must not make this machine connect to servers, so reading
from them is off unless the user turns it on (`remote_reading`, `--remote`). GDAL reads rasters and
vectors piece by piece through its virtual file systems; fsspec lists folders and reads small files.
Both take credentials from the environment and the usual files, never from a path.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module
from pathlib import Path, PurePath
from typing import Any

from geotune.errors import GeotuneError

GDAL_PREFIXES = {
    "http": "/vsicurl/http://",
    "https": "/vsicurl/https://",
    "s3": "/vsis3/",
    "gs": "/vsigs/",
}
"""How GDAL names a file, by scheme."""

PACKAGES = {"http": "aiohttp", "https": "aiohttp", "s3": "s3fs", "gs": "gcsfs"}
"""What fsspec needs for a scheme."""

HTTP = ("http", "https")

ENABLED = "GEOTUNE_REMOTE"
"""The environment variable that says so, also to worker processes."""

GDAL_OPTIONS = {
    "GDAL_HTTP_CONNECTTIMEOUT": "10",
    "GDAL_HTTP_TIMEOUT": "60",
    "GDAL_HTTP_MAX_RETRY": "4",
    "GDAL_HTTP_RETRY_DELAY": "0.5",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_INGESTED_BYTES_AT_OPEN": "32768",  # the header of a Cloud-Optimised GeoTIFF at once
    "VSI_CACHE": "TRUE",
}
"""For reading from servers; what the user's environment sets is kept."""

OFFLINE_OPTIONS = {
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".none",  # of its virtual file systems on servers
    "GDAL_HTTP_PROXY": "http://127.0.0.1:9",  # a port that nothing listens on: of its web services
}
"""With these, GDAL connects to no server, also for local files that refer to one."""

PROXY_EXCEPTIONS = ("no_proxy", "NO_PROXY")
"""Variables that name hosts which libcurl connects to without the proxy above."""


@contextmanager
def without_servers() -> Iterator[None]:
    """Keep GDAL from servers in this process and those that it starts, unless they are allowed.

    A local file can refer to a server: a VRT with a source at `/vsicurl/`, or the description of a
    WMS. The command line runs in it; a program that imports geotune may use GDAL as it likes.
    """
    if os.environ.get(ENABLED):
        yield
        return
    with _environment(OFFLINE_OPTIONS):
        stay_without_servers()
        try:
            yield
        finally:
            for name in PROXY_EXCEPTIONS:
                if name in os.environ:
                    os.putenv(name, os.environ[name])
                else:
                    os.unsetenv(name)


def stay_without_servers() -> None:
    """In a process that another one started: do as that one does, see `without_servers`."""
    if OFFLINE_OPTIONS.items() <= os.environ.items():
        for name in PROXY_EXCEPTIONS:
            os.putenv(name, "")  # for libcurl alone: os.environ, which Python's clients read, stays


def server_variables() -> dict[str, str]:
    """The variables of the environment that say how this process treats servers."""
    names = (ENABLED, *GDAL_OPTIONS, *OFFLINE_OPTIONS)
    return {name: os.environ[name] for name in names if name in os.environ}


def treat_servers_by(variables: Mapping[str, str]) -> None:
    """In a process on another machine: treat servers as the one with these `server_variables`."""
    os.environ.update(variables)
    stay_without_servers()


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables of the environment, and restore them."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def refers_to_server(path: Path) -> bool:
    """Whether a local description of a raster names files or services on servers."""
    try:
        with path.open("rb") as file:
            start = file.read(2**20).lstrip()
    except OSError:
        return False
    names = (b"/vsicurl", b"/vsis3", b"/vsigs", b"/vsiaz", b"/vsiadls", b"/vsioss", b"/vsiswift")
    return start.startswith(b"<") and any(
        name in start for name in (*names, b"<ServerUrl>", b"<ServiceURL>", b"<ServiceUrl>")
    )


@contextmanager
def remote_reading(enabled: bool = True) -> Iterator[None]:
    """Allow reading scenes and labels from servers (`https://`, `s3://`, `gs://`) in this process.

    It holds for the whole process and the workers that it starts; `enabled=False` changes nothing.
    """
    if not enabled:
        yield
        return
    options = {name: value for name, value in GDAL_OPTIONS.items() if name not in os.environ}
    _info.cache_clear()
    with _environment({ENABLED: "1", **options}):
        yield


def scheme_of(path: PurePath | str) -> str | None:
    """The scheme of a file on a server; None for local files."""
    start = str(path).partition(":/")[0]
    return start if start in GDAL_PREFIXES and ":/" in str(path) else None


def to_path(text: str) -> Path:
    """The path of a file, on this machine or on a server."""
    return Path(text) if scheme_of(text) is None else RemotePath(text)


def gdal_name(path: PurePath) -> str:
    """How GDAL names a file."""
    scheme = scheme_of(path)
    if scheme is None:
        return str(path)
    return GDAL_PREFIXES[scheme] + str(path).partition(":")[2].lstrip("/")


def check_remote(path: str) -> None:
    """Raise `GeotuneError` for a file on a server that may not be read.

    A query or a password would end in recipes, reports and items, so neither is taken.
    """
    shown = path.partition("?")[0]
    scheme, _, rest = path.partition("://")
    if scheme not in GDAL_PREFIXES:
        raise GeotuneError(
            f"{shown}: {scheme}:// is not supported; expected a local path, https://, s3:// or "
            "gs://: download the file and give its path",
            code="file-remote",
        )
    if "@" in rest.partition("/")[0]:
        raise GeotuneError(
            f"{scheme}://...{rest.partition('@')[2].partition('?')[0]}: has a user name or "
            "password, which would be written to the run; set credentials in the environment "
            "(docs/how-to/remote.md)",
            code="file-remote",
        )
    if "=" in path.partition("?")[2]:
        raise GeotuneError(
            f"{shown}: has a query, which may hold a signature and would be written to the run; "
            "give the address without it, and credentials in the environment "
            "(docs/how-to/remote.md)",
            code="file-remote",
        )
    if not os.environ.get(ENABLED):
        raise GeotuneError(
            f"{shown}: not a local path; add --remote to read it from the server (in Python: "
            "geotune.remote_reading()), or download the file and give its path",
            code="file-remote",
        )


def list_files(pattern: str) -> list[str]:
    """The files on a server that match a shell pattern, sorted.

    Raises `GeotuneError` if the server cannot list them.
    """
    check_remote(pattern)
    with _server_errors(pattern):
        system = _file_system(pattern)
        found = system.glob(pattern)
        return sorted(str(system.unstrip_protocol(name)) for name in found)


class RemotePath(type(Path())):  # type: ignore[misc]  # the class of paths of this system
    """A file on a server. Only what reading needs is there; its text is the address."""

    def __str__(self) -> str:
        """The address."""
        scheme, _, rest = super().__str__().partition(":/")
        return f"{scheme}://{rest.lstrip('/')}"

    def __fspath__(self) -> str:
        return str(self)

    def absolute(self) -> RemotePath:
        """The same."""
        return self

    def resolve(self, strict: bool = False) -> RemotePath:
        """The same."""
        del strict
        return self

    def exists(self, **_: Any) -> bool:
        """Whether the server has the file."""
        try:
            _describe(str(self))
        except FileNotFoundError:
            return False
        return True

    def is_file(self, **_: Any) -> bool:
        """Whether the server has the file."""
        return self.exists()

    def is_dir(self, **_: Any) -> bool:
        """No: folders on servers are not read."""
        return False

    def stat(self, **_: Any) -> os.stat_result:
        """Size, and as its times a number that changes with the file if the server states it."""
        size, version = _describe(str(self))
        return os.stat_result(
            (stat.S_IFREG | 0o444, 0, 0, 1, 0, 0, size, 0, version, version),
            {"st_mtime_ns": version, "st_ctime_ns": version, "st_atime_ns": 0},
        )

    def read_bytes(self) -> bytes:
        """The whole file."""
        with _server_errors(str(self)):
            check_remote(str(self))
            content: bytes = _file_system(str(self)).cat_file(str(self))
            return content

    def read_text(self, encoding: str | None = None, errors: str | None = None, **_: Any) -> str:
        """The whole file as text."""
        return self.read_bytes().decode(encoding or "utf-8", errors or "strict")

    def open(self, mode: str = "r", **options: Any) -> Any:
        """Open the file for reading."""
        import io

        if "r" not in mode:
            raise PermissionError(f"{self}: files on servers are read only")
        options.pop("buffering", None)
        data = io.BytesIO(self.read_bytes())
        return data if "b" in mode else io.TextIOWrapper(data, **options)


def _describe(address: str) -> tuple[int, int]:
    """Size in bytes, and a number for the version. Raises `FileNotFoundError`, `GeotuneError`."""
    check_remote(address)
    with _server_errors(address):
        return _info(address)


@lru_cache(maxsize=4096)
def _info(address: str) -> tuple[int, int]:
    info = _file_system(address).info(address)
    known = [str(info.get(key, "")) for key in ("ETag", "etag", "LastModified", "mtime", "updated")]
    digest = hashlib.sha256("|".join(known).encode()).digest()
    return int(info.get("size") or 0), int.from_bytes(digest[:7], "big")


def _file_system(address: str) -> Any:
    import fsspec

    scheme = str(scheme_of(address))
    try:
        return fsspec.filesystem(scheme, **(_http_options() if scheme in HTTP else {}))
    except ImportError as error:
        package = PACKAGES[scheme]
        raise GeotuneError(
            f"{address}: reading {scheme}:// requires {package}: pip install 'geotune[remote]'",
            code="dependency-missing",
        ) from error


def _http_options() -> dict[str, Any]:
    """The times after which GDAL gives up, for aiohttp, which by default waits for 5 minutes."""
    aiohttp: Any = import_module("aiohttp")
    silent, connecting = (
        float(os.environ.get(name, GDAL_OPTIONS[name]))
        for name in ("GDAL_HTTP_TIMEOUT", "GDAL_HTTP_CONNECTTIMEOUT")
    )
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=connecting, sock_read=silent)
    return {"client_kwargs": {"timeout": timeout}}


@contextmanager
def _server_errors(address: str) -> Iterator[None]:
    """Turn errors of fsspec into a `GeotuneError`, but for a missing file."""
    try:
        yield
    except GeotuneError:
        raise
    except Exception as found:  # each file system has its own
        error = found
        if isinstance(found, FileNotFoundError):
            # fsspec raises it over HTTP whatever the server answers
            cause = found.__cause__
            if not isinstance(cause, Exception) or getattr(cause, "status", 0) in (404, 410):
                raise
            error = cause
        raise GeotuneError(
            f"{address}: cannot be read from the server ({type(error).__name__}: {error}); check "
            "the address, the network and the credentials (docs/how-to/remote.md)",
            code="remote-unavailable",
        ) from error
