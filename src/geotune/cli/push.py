"""`geotune push`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from geotune.cli.console import Json, escape, message, out, print_json


def push(
    run: Path,
    repo: str,
    *,
    private: Annotated[bool, Parameter(negative="")] = False,
    revision: str | None = None,
    licence: Annotated[str | None, Parameter(name=("--licence", "--license"))] = None,
    commit_message: Annotated[str | None, Parameter(name="--message")] = None,
    picture: bool = True,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    dry_run: Path | None = None,
    as_json: Json = False,
) -> None:
    """Upload a trained model to the Hugging Face hub, for hub:ORG/NAME in other commands.

    Uploaded are the adapter, a model card with metrics and a picture, a STAC item, and a backbone
    that was pretrained by geotune; no pickles, no code and no paths of this machine. Log in with
    hf auth login, or set HF_TOKEN.

    Parameters
    ----------
    run
        A run folder, or a folder with adapter.json and adapter.safetensors.
    repo
        ORG/NAME; created if it does not exist.
    private
        Create a private repository.
    revision
        The branch; created if it does not exist.
    licence
        Licence of the model, such as cc-by-4.0; by default that of the backbone's weights.
    commit_message
        Message of the commit.
    picture
        Upload a picture of two validation windows, with their images.
    overwrite
        Replace the files of geotune in a repository that has files.
    dry_run
        Write the files to this folder, and upload nothing.
    """
    from geotune.api.sharing.push import push as push_run
    from geotune.report.number_format import size

    result = push_run(
        run,
        repo,
        private=private,
        revision=revision,
        licence=licence,
        message=commit_message,
        picture=picture,
        overwrite=overwrite,
        dry_run=dry_run,
    )
    if as_json:
        print_json(vars(result))
        return
    for note in result.notes:
        message(f"note: {note}")
    for name, count in result.files.items():
        out().print(f"{size(count):>10}  {escape(name)}")
    if result.folder is not None:
        out().print(f"nothing was uploaded; the files are in {escape(str(result.folder))}")
        return
    out().print(f"{result.repo}\n{result.url}")
