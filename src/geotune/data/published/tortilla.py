"""Unpack the `.tortilla` files of GEO-Bench-2 (arXiv 2511.15658) into folders of GeoTIFFs.

A tortilla is a container of files: a header of 200 bytes that begins with `#y` and the offset and
length of its index as little-endian int64, the files, and the index, a Parquet table with a row per
file. The samples of GEO-Bench-2 are tortillas inside of one, whose offsets count from their own
header, with the images first and the label last. The layout was read from the data loaders of
github.com/The-AI-Alliance/GEO-Bench-2 and the small copies in its tests.
"""

from __future__ import annotations

import csv
import io
import json
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from geotune.errors import GeotuneError
from geotune.utils.atomic import write_atomically
from geotune.utils.parquet import read_parquet_bytes

SPLITS = {"train": "train", "validation": "val", "test": "test"}
"""Split in a tortilla to that of `labels.csv`."""
LABELS = ("labels", "species_labels")
"""Columns with the classes of an image."""
_HEADER = struct.Struct("<2sqq")
_SAFE_NAME = re.compile(r"\w[\w.-]*")

Row = Mapping[str, Any]


def unpack_tortilla(
    paths: Sequence[Path],
    folder: Path,
    *,
    image: int = 0,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Write the samples of one data set to `folder`; returns their number.

    Image `i` of a sample becomes `<split>/<sample>/<i>.tif`, numbered as the data loaders of
    GEO-Bench-2 do; a mask is one of them. Boxes become `annotations.json` (COCO) and classes of
    images `labels.csv` (path, labels, split), both of image number `image`.

    Raises `GeotuneError` for no file, a file that is missing, damaged or in another format, without
    pyarrow, and for items other than GeoTIFF and GeoParquet.
    """
    if not paths:
        raise GeotuneError(
            f"{folder}: no .tortilla file given; name all files of the data set after the folder",
            code="file-missing",
        )
    coco: dict[str, list[Any]] = {"images": [], "annotations": [], "categories": []}
    labels: list[tuple[str, str, str]] = []
    indices = {path: _read_file_index(path) for path in paths}
    total, done = sum(map(len, indices.values())), 0
    for path, samples in indices.items():
        with path.open("rb") as file:
            for sample in samples:
                _unpack_sample(path, file, sample, folder, image, coco, labels)
                done += 1
                on_progress(done, total)
    if coco["images"]:
        write_atomically(folder / "annotations.json", json.dumps(coco).encode())
    if labels:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([("path", "labels", "split"), *labels])
        write_atomically(folder / "labels.csv", text.getvalue().encode())
    return total


def _unpack_sample(
    path: Path,
    file: BinaryIO,
    sample: Row,
    folder: Path,
    image: int,
    coco: dict[str, list[Any]],
    labels: list[tuple[str, str, str]],
) -> None:
    name, split, start = (sample[f"tortilla:{key}"] for key in ("id", "data_split", "offset"))
    if not _SAFE_NAME.fullmatch(str(name)) or split not in SPLITS:
        raise _damaged(path, f"sample {name!r} of split {split!r}")
    relative = f"{split}/{name}"
    for number, item in enumerate(_read_index(path, file, start)):
        data = _read(path, file, start + item["tortilla:offset"], item["tortilla:length"])
        kind = item["tortilla:file_format"]
        if kind == "GTiff":
            write_atomically(folder / relative / f"{number}.tif", data)
        elif kind == "GeoParquet":
            file_name, shape = f"{relative}/{image}.tif", sample["stac:raster_shape"]
            _add_boxes(coco, file_name, shape, _read_parquet(path, data))
        else:
            raise GeotuneError(
                f"{path}: {name} has a {kind} file; expected GTiff or GeoParquet, use the data "
                "loader of GEO-Bench-2 for this data set",
                code="file-unreadable",
                file=path,
            )
    for column in LABELS:
        if column in sample:
            labels.append((f"{relative}/{image}.tif", ";".join(sample[column]), SPLITS[split]))


def _add_boxes(
    coco: dict[str, list[Any]], file_name: str, shape: Sequence[int], boxes: Sequence[Row]
) -> None:
    """Add an image with its boxes; category ids count from 1 in the order of appearance."""
    height, width = shape
    number = len(coco["images"]) + 1
    coco["images"].append({"id": number, "file_name": file_name, "height": height, "width": width})
    ids = {category["name"]: category["id"] for category in coco["categories"]}
    for box in boxes:
        if box["label"] not in ids:
            ids[box["label"]] = len(ids) + 1
            coco["categories"].append({"id": ids[box["label"]], "name": box["label"]})
        left, top, right, bottom = (float(box[key]) for key in ("xmin", "ymin", "xmax", "ymax"))
        coco["annotations"].append(
            {
                "id": len(coco["annotations"]) + 1,
                "image_id": number,
                "category_id": ids[box["label"]],
                "bbox": [left, top, right - left, bottom - top],
            }
        )


def _read_file_index(path: Path) -> list[Row]:
    try:
        with path.open("rb") as file:
            return _read_index(path, file, 0)
    except OSError as error:
        raise GeotuneError(
            f"{path}: cannot be read ({error.strerror}); check the path",
            code="file-missing" if isinstance(error, FileNotFoundError) else "file-unreadable",
            file=path,
        ) from error


def _read_index(path: Path, file: BinaryIO, start: int) -> list[Row]:
    """The rows of the index of the tortilla at `start`."""
    magic, offset, length = _HEADER.unpack(_read(path, file, start, _HEADER.size))
    if magic != b"#y":
        raise _damaged(path, f"no tortilla at byte {start}")
    return _read_parquet(path, _read(path, file, start + offset, length))


def _read(path: Path, file: BinaryIO, offset: int, length: int) -> bytes:
    size = path.stat().st_size
    if not 0 <= offset <= offset + length <= size:
        raise _damaged(path, f"bytes {offset} to {offset + length} of {size}")
    file.seek(offset)
    return file.read(length)


def _read_parquet(path: Path, data: bytes) -> list[Row]:
    try:
        from pyarrow import ArrowException
    except ImportError as error:
        raise GeotuneError(
            f"{path}: reading tortillas requires pyarrow: pip install 'geotune[lists]'",
            code="dependency-missing",
            file=path,
        ) from error
    try:
        rows: list[Row] = read_parquet_bytes(data).to_pylist()
    except (ArrowException, OSError) as error:
        raise _damaged(path, f"index unreadable: {error}") from error
    return rows


def _damaged(path: Path, problem: str) -> GeotuneError:
    return GeotuneError(
        f"{path}: not a complete tortilla of GEO-Bench-2 ({problem}); download it again",
        code="file-unreadable",
        file=path,
    )
