"""The formats of object labels, and which one a file has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from geotune.data.annotations.base import AnnotationFormat
from geotune.data.text_io import read_words
from geotune.errors import GeotuneError
from geotune.registry import ANNOTATION_FORMATS


def annotation_format(name: str) -> AnnotationFormat:
    """The format with this name in the registry."""
    found: AnnotationFormat = ANNOTATION_FORMATS[name].load()
    return found


def detect_format(paths: Sequence[Path]) -> str:
    """The format of a data set's label files: that of the first file that has one.

    Raises `GeotuneError` if none has.
    """
    for path in paths:
        for name in ANNOTATION_FORMATS:
            if annotation_format(name).matches(path):
                return name
    first = paths[0]
    if all(
        path.suffix.lower() == ".txt" and next(read_words(path), None) is None for path in paths
    ):
        others = f", like all {len(paths)} label files" if len(paths) > 1 else ""
        raise GeotuneError(
            f"{first}: empty{others}, so there is no object and no format; write the labels again, "
            f"or set data.format to one of {', '.join(ANNOTATION_FORMATS)}",
            code="label-format-unknown",
            key="data.format",
            file=first,
        )
    raise GeotuneError(
        f"{first}: format not recognised from its name and contents; set data.format to one of "
        f"{', '.join(ANNOTATION_FORMATS)}",
        code="label-format-unknown",
        key="data.format",
        file=first,
    )
