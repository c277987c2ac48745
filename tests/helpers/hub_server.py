"""A server that speaks the part of the Hugging Face hub's HTTP API that geotune uses.

Repositories are in memory. Files whose names end as those of tensors are stored as LFS objects, so
that uploads and downloads take the same ways as on the hub; the others are part of the commit.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

TOKEN = "hf_owner"
"""Of the account that owns the organisation `org`; it may not write to others."""

LFS_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")


@dataclass
class Repository:
    """A repository of models: the files of each commit, and the commit of each branch."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """Make a commit of these files and no others; returns its hash."""
        text = repr((len(self.commits), sorted(files.items())))
        sha = hashlib.sha1(text.encode()).hexdigest()
        self.commits[sha] = dict(files)
        self.branches[branch] = sha
        return sha

    def files(self, branch: str = "main") -> dict[str, bytes]:
        return self.commits[self.branches[branch]]


@dataclass
class Hub:
    """The hub's repositories, and what was asked of it.

    Attributes:
        cdn: where LFS objects are read.
        objects: LFS objects by hash; `names` has those of their files.
        requests: method and path of each request.
        replaced: content that is sent in place of a file, by its name, as a broken server does.
        claimed: size that is stated for a file, by its name.
        failing: every request fails with this status, if it is not 0.
    """

    endpoint: str = ""
    cdn: str = ""
    repos: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    replaced: dict[str, bytes] = field(default_factory=dict)
    claimed: dict[str, int] = field(default_factory=dict)
    failing: int = 0

    def add(self, repo: str, files: dict[str, bytes] | Path, **options: Any) -> str:
        """Add a repository with the files of a dict or a folder; returns its commit."""
        if isinstance(files, Path):
            files = {
                path.relative_to(files).as_posix(): path.read_bytes()
                for path in files.rglob("*")
                if path.is_file()
            }
        return self.repos.setdefault(repo, Repository(**options)).commit(files)

    def downloaded(self) -> list[str]:
        """Names of the files that were read."""
        paths = [line.split(" ", 1)[1] for line in self.requests if line.startswith("GET ")]
        whole = [path.split("/", 5)[5] for path in paths if "/resolve/" in path]
        return whole + [self.names[path.split("/")[2]] for path in paths if path[:5] == "/cdn/"]


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        if self.hub.failing:
            return self._send(self.hub.failing, {"error": "failing"})
        for pattern, action in self.ROUTES.items():
            if match := re.fullmatch(pattern, path):
                return action(self, body, **match.groupdict())
        return self._send(404, {"error": f"no route {path}"})

    def _send(
        self, status: int, content: Any = None, headers: dict[str, str] | None = None
    ) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content or {}).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if "Content-Length" not in (headers or {}):
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _error(self, status: int, code: str) -> None:
        self._send(status, {"error": code}, {"X-Error-Code": code, "X-Error-Message": code})

    def _readable(self, name: str) -> Repository | None:
        """A repository; None if it cannot be read, after the answer was sent."""
        repo, known = self.hub.repos.get(name), self._authorized()
        if repo is None or (repo.private and not known):
            self._error(404 if known else 401, "RepoNotFound")
            return None
        if repo.gated:
            self._error(403, "GatedRepo")
            return None
        return repo

    def _authorized(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _writable(self, name: str) -> Repository | None:
        if not self._authorized():
            self._send(401, {"error": "Invalid username or password."})
            return None
        if not name.startswith("org/"):
            self._send(403, {"error": "Forbidden"})
            return None
        return self.hub.repos.get(name) or self._readable(name)

    def _commit_of(self, repo: Repository, revision: str) -> str | None:
        sha = repo.branches.get(revision, revision if revision in repo.commits else None)
        if sha is None:
            self._error(404, "RevisionNotFound")
        return sha

    # ------------------------------------------------------------ reading
    def resolve(self, _: bytes, name: str, revision: str, file: str) -> None:
        repo = self._readable(name)
        sha = None if repo is None else self._commit_of(repo, revision)
        if repo is None or sha is None:
            return
        if file not in repo.commits[sha]:
            return self._send(
                404,
                {"error": "Entry not found"},
                {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": sha},
            )
        data = repo.commits[sha][file]
        digest = hashlib.sha256(data).hexdigest()
        size = self.hub.claimed.get(file, len(data))
        headers = {"X-Repo-Commit": sha, "ETag": f'"{digest}"', "Accept-Ranges": "bytes"}
        if file.endswith(LFS_SUFFIXES):
            self.hub.objects[digest] = self.hub.replaced.get(file, data)
            self.hub.names[digest] = file
            headers |= {"X-Linked-Size": str(size), "X-Linked-Etag": f'"{digest}"'}
            return self._send(302, b"", {**headers, "Location": f"{self.hub.cdn}/cdn/{digest}"})
        data = self.hub.replaced.get(file, data)
        return self._send(200, data, {**headers, "Content-Length": str(size)})

    def cdn(self, _: bytes, oid: str) -> None:
        self._send(200, self.hub.objects[oid])

    def info(self, _: bytes, name: str, revision: str = "main") -> None:
        repo = self._readable(name)
        sha = None if repo is None else self._commit_of(repo, revision)
        if repo is not None and sha is not None:
            siblings = [{"rfilename": path} for path in repo.commits[sha]]
            self._send(200, {"id": name, "sha": sha, "siblings": siblings})

    def tree(self, _: bytes, name: str, revision: str) -> None:
        repo = self._readable(name)
        sha = None if repo is None else self._commit_of(repo, revision)
        if repo is not None and sha is not None:
            files = repo.commits[sha].items()
            entries = [
                {"type": "file", "path": path, "size": len(data), "oid": "0" * 40}
                for path, data in files
            ]
            self._send(200, entries)

    # ------------------------------------------------------------ writing
    def create(self, body: bytes) -> None:
        values = json.loads(body)
        name = f"{values['organization']}/{values['name']}"
        url = {"url": f"{self.hub.endpoint}/{name}"}
        if name in self.hub.repos and self._authorized():
            return self._send(409, {**url, "error": "You already created this model repo"})
        if not self._authorized() or values["organization"] != "org":
            return self._send(403 if self._authorized() else 401, {"error": "not allowed"})
        private = values.get("private", values.get("visibility") == "private")
        self.hub.repos[name] = Repository(private=bool(private))
        self.hub.repos[name].commit({".gitattributes": b"*.safetensors filter=lfs\n"})
        return self._send(200, url)

    def branch(self, _: bytes, name: str, branch: str) -> None:
        repo = self._writable(name)
        if repo is None:
            return
        if branch in repo.branches:
            return self._send(409, {"error": "Reference already exists"})
        repo.branches[branch] = repo.branches["main"]
        self._send(200)

    def validate_yaml(self, body: bytes) -> None:
        assert json.loads(body)["content"].startswith("---\n")
        self._send(200, {"errors": [], "warnings": []})

    def preupload(self, body: bytes, name: str, revision: str) -> None:
        if self._writable(name) is None:
            return
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(LFS_SUFFIXES) else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(body)["files"]
        ]
        self._send(200, {"files": files})

    def lfs_batch(self, body: bytes, name: str) -> None:
        if self._writable(name) is None:
            return
        objects = [
            {
                "oid": entry["oid"],
                "size": entry["size"],
                "actions": {"upload": {"href": f"{self.hub.endpoint}/lfs/{entry['oid']}"}},
            }
            for entry in json.loads(body)["objects"]
        ]
        self._send(200, {"transfer": "basic", "objects": objects})

    def lfs_put(self, body: bytes, oid: str) -> None:
        assert hashlib.sha256(body).hexdigest() == oid
        self.hub.objects[oid] = body
        self._send(200)

    def commit(self, body: bytes, name: str, revision: str) -> None:
        repo = self._writable(name)
        if repo is None:
            return
        files = dict(repo.files(revision))
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif entry["key"] == "deletedFile":
                del files[value["path"]]
        sha = repo.commit(files, revision)
        url = f"{self.hub.endpoint}/{name}/commit/{sha}"
        self._send(200, {"commitUrl": url, "commitOid": sha, "success": True})

    _REPO = r"(?P<name>[^/]+/[^/]+)"
    ROUTES = {  # noqa: RUF012 (never changed)
        rf"/{_REPO}/resolve/(?P<revision>[^/]+)/(?P<file>.+)": resolve,
        r"/cdn/(?P<oid>\w+)": cdn,
        rf"/api/models/{_REPO}": info,
        rf"/api/models/{_REPO}/revision/(?P<revision>.+)": info,
        rf"/api/models/{_REPO}/tree/(?P<revision>[^/]+)": tree,
        r"/api/repos/create": create,
        rf"/api/models/{_REPO}/branch/(?P<branch>.+)": branch,
        r"/api/validate-yaml": validate_yaml,
        rf"/api/models/{_REPO}/preupload/(?P<revision>.+)": preupload,
        rf"/{_REPO}\.git/info/lfs/objects/batch": lfs_batch,
        r"/lfs/(?P<oid>\w+)": lfs_put,
        rf"/api/models/{_REPO}/commit/(?P<revision>.+)": commit,
    }


@contextmanager
def running_hub(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[Hub]:
    """Serve an empty hub, to which huggingface_hub then connects, with an empty cache."""
    from huggingface_hub import constants, file_download

    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    hub.cdn = f"http://localhost:{server.server_port}"  # another host, which gets no token
    template = f"{hub.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    if hasattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE"):  # before version 1
        monkeypatch.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
