"""The error for missing files of a published data set."""

from __future__ import annotations

from pathlib import Path

from geotune.datasets.base import DatasetInfo, expected_layout
from geotune.errors import GeotuneError


def missing_files_error(
    about: DatasetInfo, root: Path, what: str, source: str = ""
) -> GeotuneError:
    """What is missing, where to get it, and how the files have to lie."""
    return GeotuneError(
        f"{root}: {what}; get it from {source or about.source} (licence: {about.licence}) and "
        "extract it there, or check data.root. Expected files:\n"
        + "\n".join(expected_layout(about)),
        code="dataset-files",
        key="data.root",
        file=root,
    )
