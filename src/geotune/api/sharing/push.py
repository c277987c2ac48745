"""`geotune push`: share a trained model on the Hugging Face hub."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from geotune.adapter_config import ADAPTER_CONFIG, NOVELTY, TENSORS
from geotune.adapter_io import read_tensors
from geotune.api.sharing import peft_layout
from geotune.api.sharing.example_picture import write_picture
from geotune.api.sharing.model_card import CardContent, model_card
from geotune.api.sharing.shared_adapter import share_adapter
from geotune.api.sharing.upload import upload
from geotune.api.stac_card import CARD, run_files, write_item
from geotune.errors import GeotuneError
from geotune.hub.download import BACKBONE
from geotune.hub.manifest import MANIFEST, write_manifest
from geotune.hub.reference import PREFIX, HubReference, check_repo, parse_reference
from geotune.stac.model_item import model_item
from geotune.training.run_dir import RunDir
from geotune.utils.atomic import make_folder
from geotune.utils.licences import spdx

README, PICTURE = "README.md", "example.png"
OWN_FILES = (
    README, MANIFEST, ADAPTER_CONFIG, TENSORS, NOVELTY, BACKBONE, CARD, PICTURE, peft_layout.CONFIG,
    peft_layout.TENSORS,
)  # fmt: skip
"""Everything that a push can upload."""


@dataclass(frozen=True)
class PushResult:
    """What was uploaded, or written for a look at it.

    Attributes:
        repo: `hub:ORG/NAME`, with the commit after an upload.
        url: page of the commit; empty without an upload.
        folder: with the files; None after an upload.
        files: sizes in bytes by name.
        notes: for the user.
    """

    repo: str
    url: str
    folder: Path | None
    files: dict[str, int]
    notes: list[str]


def push(
    run: Path | str,
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    licence: str | None = None,
    message: str | None = None,
    picture: bool = True,
    overwrite: bool = False,
    dry_run: Path | str | None = None,
) -> PushResult:
    """Upload the adapter of a run to the Hugging Face hub, with a model card and a STAC item.

    Uploaded are tensors, descriptions and a picture, no pickles and no code, and no paths of this
    machine. `hub:ORG/NAME` then stands for the adapter in `predict`, `load_adapter` and so on. Of a
    pretraining, `backbone.safetensors` is uploaded too; LoRA also in the layout of HF peft.

    Args:
        run: the run folder, or a folder with `adapter.json` and `adapter.safetensors`.
        repo: `ORG/NAME`; created if it does not exist.
        private: whether a new repository is private.
        revision: the branch; created if it does not exist.
        licence: of the adapter, such as `cc-by-4.0`; by default that of the backbone's weights.
        message: of the commit.
        picture: whether to upload a picture of two validation windows.
        overwrite: replace files of geotune that are in the repository.
        dry_run: write the files to this folder and upload nothing.

    Raises `GeotuneError` for an incomplete run, for a repository with files, and if the hub cannot
    be reached or does not allow it.
    """
    repo = repo.removeprefix(PREFIX)
    name, sign, branch = repo.partition("@")
    if sign:
        raise GeotuneError(
            f"{repo}: found a name with a revision, expected ORG/NAME; name the branch with "
            f"--revision, as in {name} --revision {branch or 'NAME'}",
            code="hub-name",
        )
    check_repo(repo, repo)
    if revision is not None:
        parse_reference(f"{PREFIX}{repo}@{revision}")
    directory = RunDir(Path(run))
    with _staging(dry_run) as folder:
        notes = write_hub_folder(directory.path, folder, repo, licence=licence, picture=picture)
        files = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
        if dry_run is not None:
            return PushResult(str(HubReference(repo)), "", folder, files, notes)
        commit = upload(
            folder,
            repo,
            own_files=OWN_FILES,
            private=private,
            revision=revision,
            message=message or f"Upload {directory.path.absolute().name} with geotune",
            overwrite=overwrite,
        )
    return PushResult(str(HubReference(repo, commit.sha)), commit.url, None, files, notes)


@contextmanager
def _staging(dry_run: Path | str | None) -> Iterator[Path]:
    """The folder to upload from. Raises `GeotuneError` if a requested one has files."""
    if dry_run is None:
        with TemporaryDirectory() as folder:
            yield Path(folder)
        return
    target = Path(dry_run)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise GeotuneError(
            f"{target}: is not an empty folder; choose another one for --dry-run",
            code="output-exists",
            key="--dry-run",
            file=target,
        )
    make_folder(target)
    try:
        yield target
    except BaseException:
        shutil.rmtree(target)
        raise


def write_hub_folder(
    run: Path, folder: Path, repo: str, *, licence: str | None = None, picture: bool = True
) -> list[str]:
    """Write everything that is uploaded to a folder; returns notes for the user."""
    config, notes = share_adapter(run, folder)
    if licence is None:
        of_base = config.base["licence"]
        licence = spdx(of_base)
        chosen = f"{licence}, as of" if licence else f"none, because {of_base!r} is stated of"
        notes.append(f"licence: {chosen} the backbone's weights; choose one with --licence")
    elif spdx(licence) is None:
        notes.append(f"licence: {licence} is no known identifier, so the hub lists it as other")
    of_run: dict[str, Any] = run_files(run)
    titles = write_picture(folder / PICTURE, RunDir(run).examples) if picture else []
    peft = peft_layout.write_peft(folder, config, read_tensors(folder, config))
    if peft:
        notes.append(f"no files for HF peft: {peft}")
    if config.sections["task"]["kind"] != "reconstruct":
        hrefs = {path.name: f"./{path.name}" for path in folder.iterdir()}
        item = model_item(repo, config, hrefs, **of_run)
        item["assets"]["readme"] = {"href": f"./{README}", "type": "text/markdown"}
        write_item(folder / CARD, item)
    of_run.pop("created")
    names = sorted({path.name for path in folder.iterdir()} | {README, MANIFEST})
    given = {key: value for key, value in of_run.items() if value is not None}
    card = CardContent(repo, config, licence, files=names, picture=titles, peft=peft, **given)
    write_manifest(folder, {path.name for path in folder.iterdir()})
    (folder / README).write_text(model_card(card), encoding="utf-8")
    return notes
