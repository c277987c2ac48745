"""Names of repositories on the hub: `hub:ORG/NAME[@REVISION]`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from geotune.errors import GeotuneError

PREFIX = "hub:"

_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_REPO = re.compile(rf"{_PART}/{_PART}")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,254}")


@dataclass(frozen=True)
class HubReference:
    """A repository of models on the hub.

    Attributes:
        repo: `ORG/NAME`.
        revision: branch, tag or commit; None for the main branch.
    """

    repo: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{PREFIX}{self.repo}" + (f"@{self.revision}" if self.revision else "")


def is_hub_name(source: Path | str) -> bool:
    """Whether a source is on the hub, and no path."""
    return str(source).startswith(PREFIX)


def parse_reference(source: Path | str) -> HubReference | None:
    """The repository that a source names; None for a path.

    Raises `GeotuneError` for a malformed name.
    """
    if not is_hub_name(source):
        return None
    repo, sign, revision = str(source).removeprefix(PREFIX).partition("@")
    check_repo(repo, str(source))
    if sign and (not _REVISION.fullmatch(revision) or ".." in revision):
        raise GeotuneError(
            f"{source}: found the revision {revision!r}, expected a branch, tag or commit after @",
            code="hub-name",
        )
    return HubReference(repo, revision or None)


def check_repo(repo: str, source: str) -> None:
    """Raise `GeotuneError` if a text is not the name of a repository."""
    if not _REPO.fullmatch(repo) or ".." in repo or "--" in repo or repo.endswith((".", ".git")):
        example = "my-org/ships"
        if is_hub_name(source):
            example = f"{PREFIX}{example}, with @REVISION for a branch, tag or commit"
        raise GeotuneError(
            f"{source}: found {repo!r}, expected ORG/NAME of a repository on the hub, such as "
            f"{example}",
            code="hub-name",
        )
