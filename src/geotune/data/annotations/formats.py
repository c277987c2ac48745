"""Every format of object labels by the name that a recipe gives it, and which one a file has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from geotune.data.annotations import yolo_txt
from geotune.data.annotations.annotation_options import AnnotationOptions
from geotune.data.annotations.base import ParsedAnnotations
from geotune.data.annotations.coco_json import image_names, read_coco, read_json
from geotune.data.annotations.dota_txt import read_dota
from geotune.data.annotations.fair1m_xml import read_fair1m
from geotune.data.annotations.nwpu_txt import read_nwpu
from geotune.data.annotations.points_csv import read_points
from geotune.data.annotations.vector_file import read_vector
from geotune.data.annotations.voc_xml import read_voc
from geotune.data.annotations.yolo_txt import read_yolo
from geotune.data.labels.vector_io import VECTOR_SUFFIXES
from geotune.data.raster.source import RasterSource
from geotune.data.text_io import read_text, read_words
from geotune.errors import GeotuneError


@dataclass(frozen=True)
class AnnotationFormat:
    """A format of object labels.

    Attributes:
        read: the objects of an image; raises `GeotuneError` for a file that is not as it should be.
        images: stems of the images that a file lists by name, where it does.
    """

    read: Callable[[Path, RasterSource, AnnotationOptions], ParsedAnnotations]
    list_images: Callable[[Path], list[str]] | None = None


FORMATS: dict[str, AnnotationFormat] = {
    "coco": AnnotationFormat(read_coco, list_images=image_names),
    "dota": AnnotationFormat(read_dota),
    "fair1m": AnnotationFormat(read_fair1m),
    "nwpu": AnnotationFormat(read_nwpu),
    "points": AnnotationFormat(read_points),
    "vector": AnnotationFormat(read_vector),
    "voc": AnnotationFormat(read_voc),
    "yolo": AnnotationFormat(read_yolo),
}


def guess_format(paths: Sequence[Path]) -> str:
    """The format of a dataset's label files, by their suffix and the first that says enough.

    Raises `GeotuneError` where none does.
    """
    for path in paths:
        suffix = path.suffix.lower()
        if suffix == ".csv":
            return "points"
        if suffix == ".xml":
            return "fair1m" if "<possibleresult" in read_text(path) else "voc"
        if suffix == ".json":
            values = read_json(path)
            return "coco" if isinstance(values, dict) and "annotations" in values else "vector"
        if suffix in VECTOR_SUFFIXES:
            return "vector"
        if suffix == ".txt" and (found := _guess_text(path)):
            return found
    first = paths[0]
    raise GeotuneError(
        f"{first}: neither its name nor what is in it says which format it has; say it with "
        f"data.format ({', '.join(FORMATS)})"
    )


def _guess_text(path: Path) -> str | None:
    """DOTA, NWPU or YOLO, by the first line with an object; None for a file without any."""
    for _, words in read_words(path):
        if words[0].startswith("("):
            return "nwpu"
        numeric = all(word.replace(".", "", 1).lstrip("-").isdigit() for word in words)
        return "yolo" if numeric and yolo_txt.fits(words) else "dota"
    return None
