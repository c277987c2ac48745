"""Download adapters and backbones that `geotune push` uploaded, and verify them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from geotune.errors import GeotuneError
from geotune.hub.connection import hub_errors, quiet_hub
from geotune.hub.manifest import MANIFEST, FileEntry, check_file, read_manifest
from geotune.hub.reference import HubReference, parse_reference

ADAPTER_FILES = ("adapter.json", "adapter.safetensors")
BACKBONE = "backbone.safetensors"

MAX_JSON_BYTES = 16 * 2**20
"""Largest description that is downloaded."""


@dataclass(frozen=True)
class AdapterSource:
    """Where an adapter's files are.

    Attributes:
        folder: with the files; of a repository on the hub, in the cache.
        reference: the repository at its commit; None for a local folder.
    """

    folder: Path
    reference: HubReference | None = None

    def __str__(self) -> str:
        return str(self.reference or self.folder)


def adapter_source(source: Path | str) -> AdapterSource:
    """The files of an adapter: of a local folder, or downloaded from the hub and verified.

    Raises `GeotuneError` if there is no such folder, or if the repository cannot be read or is not
    one of geotune.
    """
    reference = parse_reference(source)
    if reference is None:
        folder = Path(source)
        if not folder.exists():
            raise GeotuneError(
                f"{folder}: folder not found; expected that of a finished run or of an adapter, or "
                "hub:ORG/NAME for a repository on the hub",
                code="adapter-missing",
                file=folder,
            )
        return AdapterSource(folder)
    return download(reference, *ADAPTER_FILES)


def backbone_file(source: Path | str) -> tuple[Path, HubReference | None]:
    """A file of weights: a local path, or `backbone.safetensors` of a repository on the hub."""
    reference = parse_reference(source)
    if reference is None:
        return Path(source), None
    found = download(reference, BACKBONE)
    return found.folder / BACKBONE, found.reference


def pinned(source: Path | str) -> Path | str:
    """A source with the commit that its branch or tag names now; paths are returned as they are."""
    reference = parse_reference(source)
    return source if reference is None else str(_manifest(reference)[1])


def download(reference: HubReference, *names: str) -> AdapterSource:
    """Download files by name into the cache, all of one commit, and verify them.

    Without internet access the cache is used. Files of other names are neither downloaded nor read.
    """
    path, commit, entries = _manifest(reference)
    for name in names:
        if name not in entries:
            advice = "was it pushed from a run of geotune pretrain?" if name == BACKBONE else ""
            raise GeotuneError(
                f"{commit}: has no {name}; {advice or 'name a repository of geotune push'}",
                code="hub-invalid",
            )
        check_file(_download_file(commit, name, entries[name]), entries[name], str(commit))
    return AdapterSource(path.parent, commit)


def _manifest(reference: HubReference) -> tuple[Path, HubReference, dict[str, FileEntry]]:
    path = _download_file(reference, MANIFEST, None)
    commit = replace(reference, revision=path.parent.name)
    return path, commit, read_manifest(path, str(commit))


def _download_file(reference: HubReference, name: str, entry: FileEntry | None) -> Path:
    """A file in the cache; its size is checked before it is downloaded."""
    from huggingface_hub import (
        constants,
        get_hf_file_metadata,
        hf_hub_download,
        hf_hub_url,
        try_to_load_from_cache,
    )

    repo, revision, cache = reference.repo, reference.revision, constants.HF_HUB_CACHE
    endpoint = constants.ENDPOINT
    if entry is not None:  # of a commit, which does not change
        cached = try_to_load_from_cache(repo, name, cache_dir=cache, revision=revision)
        if isinstance(cached, str):
            return Path(cached)
    with hub_errors(str(reference), name), quiet_hub():
        if not constants.HF_HUB_OFFLINE:
            url = hf_hub_url(repo, name, revision=revision, endpoint=endpoint)
            _check_size(reference, name, get_hf_file_metadata(url).size, entry)
        return Path(
            hf_hub_download(repo, name, revision=revision, cache_dir=cache, endpoint=endpoint)
        )


def _check_size(
    reference: HubReference, name: str, size: int | None, entry: FileEntry | None
) -> None:
    """Raise `GeotuneError` before a file of another size than in the manifest is downloaded."""
    if entry is not None and size != entry.size:
        expected = f"{entry.size} bytes as in {MANIFEST}"
    elif name.endswith(".json") and (size is None or size > MAX_JSON_BYTES):
        expected = f"at most {MAX_JSON_BYTES} bytes"
    else:
        return
    raise GeotuneError(
        f"{reference}: {name} has {size} bytes, expected {expected}; ask its author to push it "
        "again",
        code="hub-invalid",
    )
