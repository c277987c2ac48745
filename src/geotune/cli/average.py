"""`geotune average`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from geotune.cli.console import Json, escape, message, out, print_json
from geotune.errors import GeotuneError


def average(
    *adapters: Path,
    out_dir: Annotated[Path, Parameter(name="--out")],
    weights: str | None = None,
    as_json: Json = False,
) -> None:
    """Average adapters of one recipe that were trained apart, on data that stay where they are.

    The adapters are of the same base weights, recipe and normalisation. The average is an adapter
    for geotune predict.

    Parameters
    ----------
    adapters
        Run folders, folders with adapter.json and adapter.safetensors, or hub:ORG/NAME[@REVISION];
        two or more.
    out_dir
        Folder for the average.
    weights
        The number of training images of each adapter, or shares of sum 1, such as 120,80,35; by
        default equal.
    """
    from geotune.api.averaging import average as average_adapters

    result = average_adapters(adapters, out_dir, weights=_numbers(weights))
    if as_json:
        print_json(
            {
                "folder": str(result.folder),
                "weights": result.weights,
                "adapter_bytes": result.adapter_bytes,
                "lost": result.lost,
                "notes": result.notes,
            }
        )
        return
    for note in result.notes:
        message(f"note: {note}")
    for folder, share in zip(adapters, result.weights, strict=True):
        out().print(f"{share:6.1%}  {escape(str(folder))}")
    out().print(f"adapter: {escape(str(result.folder))}")


def _numbers(text: str | None) -> list[float] | None:
    """Numbers with commas between them. Raises `GeotuneError` for other text."""
    try:
        return None if text is None else [float(number) for number in text.split(",")]
    except ValueError as error:
        raise GeotuneError(
            f"--weights {text!r}: expected numbers with commas between them, such as 120,80,35",
            code="option-invalid",
            key="--weights",
        ) from error
