"""`geotune unpack`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from geotune.cli.console import message, show_progress


def unpack(folder: Path, *files: Path, image: int = 0) -> None:
    """Unpack the .tortilla files of a GEO-Bench-2 data set into a folder of GeoTIFFs.

    docs/reference/datasets.md lists the data sets and the recipes that read the folder.

    Parameters
    ----------
    folder
        The folder to write to.
    files
        All .tortilla files of the data set.
    image
        The number of the image that classes and boxes belong to, from 0.
    """
    from geotune.data.published.tortilla import unpack_tortilla
    from geotune.utils.text import pluralize

    with show_progress() as on_progress:
        unpacking = partial(on_progress, "unpacking")
        count = unpack_tortilla(files, folder, image=image, on_progress=unpacking)
    message(f"{folder}: {pluralize(count, 'sample')}")
