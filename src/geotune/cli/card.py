"""`geotune card`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from geotune.cli.console import Json, escape, out, print_json


def card(
    run: Path,
    *,
    out_file: Annotated[Path | None, Parameter(name="--out")] = None,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    as_json: Json = False,
) -> None:
    """Write a STAC item that describes the model of a run to catalogues.

    The item has the machine-learning-model extension (MLM 1.5.2): bands, normalisation, outputs,
    classes, options, metrics, and where and when the training images were taken.

    Parameters
    ----------
    run
        A run folder, a folder with adapter.json and adapter.safetensors, or
        hub:ORG/NAME[@REVISION].
    out_file
        The file; by default card.json in the run folder, which is replaced.
    overwrite
        Replace an existing file of another name.
    """
    from geotune.api.stac_card import card as write_card

    path = write_card(run, out_file, overwrite=overwrite)
    if as_json:
        print_json({"card": str(path)})
        return
    out().print(f"card: {escape(str(path))}")
