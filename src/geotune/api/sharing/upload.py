"""Upload a folder to the hub as one commit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from geotune.errors import GeotuneError
from geotune.hub.connection import hub_errors, quiet_hub

if TYPE_CHECKING:
    from huggingface_hub import HfApi

KEPT = (".gitattributes",)
"""Files of the hub that count as no content."""


@dataclass(frozen=True)
class Commit:
    """A commit on the hub.

    Attributes:
        sha: its hash.
        url: its page.
    """

    sha: str
    url: str


def upload(
    folder: Path,
    repo: str,
    *,
    own_files: Sequence[str],
    private: bool,
    revision: str | None,
    message: str,
    overwrite: bool,
) -> Commit:
    """Upload the files of a folder, in one commit; the repository and the branch are created.

    Args:
        folder: whose files are uploaded.
        repo: `ORG/NAME`.
        own_files: that geotune writes; those that the folder lacks are deleted in the repository.
        private: whether a new repository is private.
        revision: the branch; None for the main one.
        message: of the commit.
        overwrite: whether the repository may have files.

    Raises `GeotuneError` if the hub refuses, and if the repository has files.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants

    source = f"hub:{repo}" + (f"@{revision}" if revision else "")
    with hub_errors(source), quiet_hub():
        api = HfApi(endpoint=constants.ENDPOINT)
        api.create_repo(repo, private=private or None, exist_ok=True)
        is_new = revision is not None and _create_branch(api, repo, revision)
        files = [path for path in api.list_repo_files(repo, revision=revision) if path not in KEPT]
        if files and not overwrite and not is_new:
            raise GeotuneError(
                f"{source}: the repository has {len(files)} files, such as {files[0]}; replace "
                "those of geotune with --overwrite, or name another repository or a new branch "
                "with --revision",
                code="hub-exists",
            )
        names = sorted(path.name for path in folder.iterdir())
        stale = [path for path in files if path in own_files and path not in names]
        info = api.create_commit(
            repo,
            [
                *(CommitOperationAdd(name, str(folder / name)) for name in names),
                *(CommitOperationDelete(path) for path in stale),
            ],
            commit_message=message,
            revision=revision,
        )
    return Commit(str(info.oid), str(info.commit_url))


def _create_branch(api: HfApi, repo: str, branch: str) -> bool:
    """Create a branch of the main one; returns whether it is new."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        api.create_branch(repo, branch=branch)
    except HfHubHTTPError as error:
        if error.response.status_code == 409:
            return False
        raise
    return True
