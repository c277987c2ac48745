"""Small data sets of every kind, and ways to damage their files."""

from __future__ import annotations

import copy
import json
import math
import shutil
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas
import rasterio
from rasterio.transform import from_origin
from shapely.geometry import box

NAMES = "abcdef"
SIDE = 48
BANDS = ("red", "green", "nir")
SPLIT = {"kind": "list", "train": ["a", "b", "c", "d"], "val": ["e"], "test": ["f"]}
Values = dict[str, Any]
Corrupt = Callable[[Path], None]


@dataclass(frozen=True)
class Damage:
    """One damaged input.

    Attributes:
        data: key of the data set in `DATA`.
        file: the damaged file, relative to the folder of the data set.
        kind: name of the damage.
        corrupt: damages the file.
        reported_as: path that the message must contain, if it is not that of the file.
    """

    data: str
    file: str
    kind: str
    corrupt: Corrupt
    reported_as: str = ""

    def __str__(self) -> str:
        return f"{self.data}-{self.file.replace('/', '.')}-{self.kind}".replace(" ", "_")


# ---------------------------------------------------------------- data sets
def transform_of(index: int) -> Any:
    return from_origin(500_000 + index * 1000, 5_000_000, 10, 10)


def box_of(index: int) -> Any:
    left, top = transform_of(index) @ (8, 8)
    return box(left, top - 200, left + 200, top)


def write(path: Path, array: Any, index: int, **profile: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = array.shape
    georeference = {"crs": "EPSG:32633", "transform": transform_of(index)}
    shape = {"count": count, "height": height, "width": width, "dtype": array.dtype}
    with rasterio.open(path, "w", driver="GTiff", **{**shape, **georeference, **profile}) as file:
        file.write(array)
        file.descriptions = BANDS[:count] if count == len(BANDS) else (None,) * count


def write_scenes(folder: Path) -> None:
    for index, name in enumerate(NAMES):
        image = np.random.default_rng(index).normal(500, 60, (3, SIDE, SIDE)).astype("float32")
        write(folder / "scenes" / f"{name}.tif", image, index)


def masks(folder: Path) -> Values:
    write_scenes(folder)
    for index, name in enumerate(NAMES):
        mask = (np.add.outer(np.arange(SIDE), np.arange(SIDE)) % 7 < 3).astype("uint8")
        write(folder / "labels" / f"{name}.tif", mask[None], index)
    return _segment(folder, "tif")


def color_masks(folder: Path) -> Values:
    """The masks of `masks` as colours, black and blue."""
    values = masks(folder)
    for index, name in enumerate(NAMES):
        path = folder / "labels" / f"{name}.tif"
        with rasterio.open(path) as file:
            mask = file.read(1)
        write(path, np.stack([0 * mask, 0 * mask, 255 * mask]), index)
    values["data"]["class_values"] = {"land": 0x000000, "water": 0x0000FF}
    return values


def vectors(suffix: str) -> Callable[[Path], Values]:
    def make(folder: Path) -> Values:
        write_scenes(folder)
        (folder / "labels").mkdir()
        for index, name in enumerate(NAMES):
            frame = geopandas.GeoDataFrame(
                {"class": ["water"]}, geometry=[box_of(index)], crs="EPSG:32633"
            )
            frame.to_file(folder / "labels" / f"{name}.{suffix}")
        values = _segment(folder, suffix)
        values["data"] |= {"class_field": "class", "unlabelled": "background"}
        return values

    return make


def points(folder: Path) -> Values:
    write_scenes(folder)
    (folder / "labels").mkdir()
    for name in NAMES:
        (folder / "labels" / f"{name}.csv").write_text("x,y\n5,6\n20.5,30\n")
    values = _segment(folder, "csv")
    values["task"] = {"kind": "density", "objects": "trees"}
    return values


def objects(suffix: str, text: str) -> Callable[[Path], Values]:
    def make(folder: Path) -> Values:
        write_scenes(folder)
        (folder / "labels").mkdir()
        for name in NAMES:
            (folder / "labels" / f"{name}.{suffix}").write_text(text.replace("NAME", name))
        values = _segment(folder, suffix)
        values["task"] = {"kind": "detect", "classes": ["ship", "crane"], "boxes": "horizontal"}
        values["decoder"] = {"kind": "fcos"}
        return values

    return make


def table(folder: Path) -> Values:
    write_scenes(folder)
    rows = [
        f"{name}.tif,{'land' if i % 2 else 'water'},{('train', 'val')[i > 3]}"
        for i, name in enumerate(NAMES)
    ]
    (folder / "labels.csv").write_text("\n".join(["path,label,split", *rows]) + "\n")
    values = _segment(folder, "")
    values["task"] = {"kind": "classify", "classes": ["land", "water"]}
    values["decoder"] = {"kind": "global_pool"}
    values["data"] = {
        "kind": "images",
        "images": str(folder / "scenes"),
        "labels": str(folder / "labels.csv"),
        "split": {"kind": "column"},
    }
    return values


def scene_table(suffix: str) -> Callable[[Path], Values]:
    """The scenes of `masks` in a table with their labels and splits."""

    def make(folder: Path) -> Values:
        values = masks(folder)
        TABLE_WRITERS[suffix](folder / f"listing.{suffix}")
        values["data"] |= {
            "scenes": str(folder / f"listing.{suffix}"),
            "labels": None,
            "split": {"kind": "column"},
        }
        return values

    return make


def _rows() -> list[dict[str, str]]:
    return [
        {"image": f"scenes/{n}.tif", "label": f"labels/{n}.tif", "split": split, "city": n}
        for split, names in SPLIT.items()
        if split != "kind"
        for n in names
    ]


def _write_csv(path: Path) -> None:
    lines = [",".join(row.values()) for row in _rows()]
    path.write_text("\n".join(["image,label,split,city", *lines]) + "\n")


def _write_parquet(path: Path) -> None:
    pandas.DataFrame(_rows()).to_parquet(path)


def _write_items(path: Path) -> None:
    items = [
        {
            "type": "Feature",
            "stac_version": "1.0.0",
            "id": row["city"],
            "geometry": None,
            "properties": {"datetime": "2020-02-29T00:00:00Z", "split": row["split"]},
            "assets": {
                "data": {"href": row["image"], "roles": ["data"]},
                "truth": {"href": row["label"], "roles": ["labels"]},
            },
            "links": [],
        }
        for row in _rows()
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))


TABLE_WRITERS: dict[str, Callable[[Path], None]] = {
    "csv": _write_csv,
    "parquet": _write_parquet,
    "json": _write_items,
}


def _segment(folder: Path, suffix: str) -> Values:
    return {
        "backbone": {"name": "timm/test_vit", "pretrained": False, "bands": list(BANDS)},
        "method": {"kind": "est", "min_width": 8, "stem_width": 0},
        "decoder": {"kind": "linear"},
        "task": {"kind": "segment", "classes": ["land", "water"]},
        "data": {
            "kind": "scenes",
            "scenes": f"{folder}/scenes/*.tif",
            "labels": f"{folder}/labels/{{stem}}.{suffix}",
            "window": 32,
            "split": copy.deepcopy(SPLIT),
        },
        "train": {"epochs": 1, "run": str(folder / "run"), "accelerator": "cpu"},
    }


COCO = json.dumps(
    {
        "images": [{"id": 1, "file_name": "NAME.tif", "width": SIDE, "height": SIDE}],
        "categories": [{"id": 1, "name": "ship"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [4, 5, 10, 12]}],
    }
)
DOTA = "4 5 14 5 14 17 4 17 ship 0\n"
VOC = (
    "<annotation><size><width>48</width><height>48</height></size><object><name>ship</name>"
    "<bndbox><xmin>4</xmin><ymin>5</ymin><xmax>14</xmax><ymax>17</ymax></bndbox></object>"
    "</annotation>"
)

YOLO = "0 2e-1 0.25 0.2083 0.25\n"

DATA: dict[str, Callable[[Path], Values]] = {
    "masks": masks,
    "colors": color_masks,
    "geojson": vectors("geojson"),
    "shp": vectors("shp"),
    "gpkg": vectors("gpkg"),
    "points": points,
    "coco": objects("json", COCO),
    "dota": objects("txt", DOTA),
    "voc": objects("xml", VOC),
    "yolo": objects("txt", YOLO),
    "table": table,
    "csv": scene_table("csv"),
    "parquet": scene_table("parquet"),
    "stac": scene_table("json"),
}


# ---------------------------------------------------------------- damage of any file
def truncate(fraction: float) -> Corrupt:
    def corrupt(path: Path) -> None:
        content = path.read_bytes()
        path.write_bytes(content[: int(fraction * len(content))])

    return corrupt


def replace_with(content: bytes) -> Corrupt:
    def corrupt(path: Path) -> None:
        path.write_bytes(content)

    return corrupt


def noise(seed: int) -> Corrupt:
    return replace_with(np.random.default_rng(seed).bytes(3000))


def zeros_at(start: int, length: int = 12) -> Corrupt:
    def corrupt(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[start : start + length] = bytes(length)
        path.write_bytes(content)

    return corrupt


def replace_with_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def broken_link(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.parent / "missing")


def link_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


ANY_FILE: dict[str, Corrupt] = {
    "empty": replace_with(b""),
    "zeros": replace_with(bytes(4000)),
    "noise": noise(0),
    "more noise": noise(1),
    "html": replace_with(b"<!DOCTYPE html><html><body>404 Not Found</body></html>"),
    "zip": replace_with(b"PK\x03\x04" + bytes(200)),
    "folder": replace_with_folder,
    "broken link": broken_link,
    "link to itself": link_to_itself,
}


# ---------------------------------------------------------------- rasters
def false_header(width: int, height: int, bands: int = 3, *, big: bool = False) -> Corrupt:
    """A file of about a thousand bytes whose header claims a large image."""
    tags = [
        (256, 4, width),
        (257, 4, height),
        (258, 3, 32),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 400),
        (277, 3, bands),
        (278, 4, height),
        (279, 4, min(width * height * 4, 2**32 - 1)),
        (284, 3, 1),
        (339, 3, 3),
    ]
    if big:
        header = b"II+\0" + struct.pack("<HHQQ", 8, 0, 16, len(tags))
        body = b"".join(struct.pack("<HHQQ", tag, kind, 1, value) for tag, kind, value in tags)
        content = header + body + bytes(8)
    else:
        header = b"II*\0" + struct.pack("<IH", 8, len(tags))
        body = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
        content = header + body + bytes(4)
    return replace_with(content + bytes(600))


def rewrite(change: Callable[[Any], Any] = lambda array: array, **profile: Any) -> Corrupt:
    """Write the raster again with other values or another profile."""

    def corrupt(path: Path) -> None:
        with rasterio.open(path) as file:
            array, crs, transform = file.read(), file.crs, file.transform
        array = change(array)
        path.unlink()
        write(path, array, 0, **{"crs": crs, "transform": transform, **profile})

    return corrupt


def set_value(value: float, *index: Any) -> Callable[[Any], Any]:
    def change(array: Any) -> Any:
        array[index] = value
        return array

    return change


def rename_bands(path: Path) -> None:
    with rasterio.open(path, "r+") as file:
        file.descriptions = ("red", "green", "swir")


IMAGE: dict[str, Corrupt] = {
    "NaN pixel": rewrite(set_value(math.nan, 1, 3, 4)),
    "NaN band": rewrite(set_value(math.nan, 2)),
    "infinite": rewrite(set_value(math.inf, 0, 0, 0)),
    "minus infinite": rewrite(set_value(-math.inf, slice(None), 5)),
    "no data at all": rewrite(set_value(-1, slice(None)), nodata=-1),
    "complex": rewrite(lambda a: a.astype("complex64")),
    "two bands": rewrite(lambda a: a[:2]),
    "four bands": rewrite(lambda a: np.concatenate([a, a[:1]])),
    "other band names": rename_bands,
    "other CRS": rewrite(crs="EPSG:32633", transform=from_origin(0, 0, 10, 10)),
    "degrees": rewrite(crs="EPSG:4326"),
    "another UTM zone": rewrite(crs="EPSG:32760"),
    "no CRS": rewrite(crs=None),
    "other units": rewrite(lambda a: a / 10_000),
    "constant": rewrite(lambda a: np.full_like(a, 7)),
    "claims 10^12 pixels": false_header(10**6, 10**6),
    "claims 4 * 10^18 pixels": false_header(2**31 - 1, 2**31 - 1),
    "claims a long line": false_header(2**31 - 1, 1),
    "claims a high column": false_header(1, 2**31 - 1),
    "claims many bands": false_header(20_000, 20_000, 60_000),
    "claims 10^12 pixels, BigTIFF": false_header(10**6, 10**6, big=True),
    "claims no pixel": false_header(0, 0),
}


def as_palette(*colors: int) -> Corrupt:
    """Write one band of indices 0 and 1 of a palette."""

    def corrupt(path: Path) -> None:
        rewrite(lambda a: (a[-1:] > 0).astype("uint8"), photometric="palette")(path)
        with rasterio.open(path, "r+") as file:
            entries = {i: (c >> 16, c >> 8 & 255, c & 255, 255) for i, c in enumerate(colors)}
            file.write_colormap(1, entries)

    return corrupt


COLORS: dict[str, Corrupt] = {
    "another color": rewrite(set_value(7, 1, 3, 3)),
    "white": rewrite(set_value(255)),
    "indices": rewrite(lambda a: a[2:] // 255),
    "a palette of other colors": as_palette(0x102030, 0x405060),
    "two bands": rewrite(lambda a: a[:2]),
    "five bands": rewrite(lambda a: np.concatenate([a, a[:2]])),
    "uint16": rewrite(lambda a: a.astype("uint16")),
    "half the size": rewrite(lambda a: a[:, ::2, ::2], crs=None, transform=None),
}

MASK: dict[str, Corrupt] = {
    "colors": rewrite(lambda a: np.concatenate([a, a, a])),
    "colors and alpha": rewrite(lambda a: np.concatenate([a, a, a, 0 * a + 255])),
    "smaller": rewrite(lambda a: a[:, :40], crs=None, transform=None),
    "larger": rewrite(lambda a: np.pad(a, ((0, 0), (0, 9), (0, 0))), crs=None, transform=None),
    "unknown class": rewrite(set_value(9, 0, 3, 3)),
    "two bands": rewrite(lambda a: np.concatenate([a, a])),
    "fractions": rewrite(lambda a: a.astype("float32") / 3),
    "negative": rewrite(lambda a: a.astype("int16") - 4),
    "all ignored": rewrite(set_value(255, slice(None))),
    "elsewhere": rewrite(transform=from_origin(900_000, 5_000_000, 10, 10)),
    "in degrees": rewrite(crs="EPSG:4326"),
    "claims 10^12 pixels": false_header(10**6, 10**6, 1),
    "claims 4 * 10^18 pixels": false_header(2**31 - 1, 2**31 - 1, 1),
    "claims no pixel": false_header(0, 0, 1),
}


# ---------------------------------------------------------------- vectors and tables
def text(content: str) -> Corrupt:
    return replace_with(content.encode())


def feature(
    geometry: Any, properties: Any = None, crs: str = "urn:ogc:def:crs:EPSG::32633"
) -> Corrupt:
    values = {
        "type": "FeatureCollection",
        "crs": {"type": "name", "properties": {"name": crs}},
        "features": [
            {
                "type": "Feature",
                "properties": {"class": "water"} if properties is None else properties,
                "geometry": geometry,
            }
        ],
    }
    return text(json.dumps(values))


def polygon(ring: Any) -> Any:
    return {"type": "Polygon", "coordinates": [ring]}


RING = [
    [502_100.0, 4_999_900.0],
    [502_300.0, 4_999_900.0],
    [502_300.0, 4_999_700.0],
    [502_100.0, 4_999_900.0],
]

GEOJSON: dict[str, Corrupt] = {
    "not JSON": text("{'type': FeatureCollection}"),
    "a list": text("[1, 2, 3]"),
    "a number": text("3"),
    "null": text("null"),
    "other class": feature(polygon(RING), {"class": "lava"}),
    "no class": feature(polygon(RING), {"class": None}),
    "no field": feature(polygon(RING), {"kind": "water"}),
    "a point": feature({"type": "Point", "coordinates": RING[0]}),
    "a line": feature({"type": "LineString", "coordinates": RING}),
    "text for numbers": feature(polygon([["x", "y"], ["z", "w"], ["x", "y"]])),
    "far away": feature(polygon([[x + 1e6, y] for x, y in RING])),
    "infinitely far": feature(polygon([[x * 1e300, y] for x, y in RING])),
    "unknown CRS": feature(polygon(RING), crs="urn:ogc:def:crs:EPSG::999999"),
    "degrees": feature(polygon(RING), crs="urn:ogc:def:crs:OGC:1.3:CRS84"),
    "NaN": text(json.dumps({"type": "Feature", "geometry": polygon([[math.nan] * 2] * 4)})),
    "deeply nested": text("[" * 100_000),
    "unknown geometry": feature({"type": "Ball", "coordinates": 3}),
    "a class number": feature(polygon(RING), {"class": 7}),
    "a class number as text": feature(polygon(RING), {"class": "7.0"}),
    "no geometry": feature(None),
    "neither geometry nor class": feature(None, {"class": None}),
    "an empty collection": feature({"type": "GeometryCollection", "geometries": []}),
    "a collection of lines": feature(
        {"type": "GeometryCollection", "geometries": [{"type": "LineString", "coordinates": RING}]}
    ),
}

POINTS: dict[str, Corrupt] = {
    "no header": text("5,6\n7,8\n"),
    "other columns": text("row,col\n5,6\n"),
    "text": text("x,y\nfive,six\n"),
    "NaN": text("x,y\nnan,3\n"),
    "infinite": text("x,y\n3,inf\n"),
    "one number": text("x,y\n3\n"),
    "unclosed quote": text('x,y\n"3,4\n5,6\n'),
    "NUL": replace_with(b"x,y\n3,\x004\n"),
    "not UTF-8": replace_with(b"x,y\n\xff\xfe,3\n"),
    "far outside": text("x,y\n90000,90000\n"),
    "a field of a megabyte": text("x,y\n" + "1" * 1_000_000 + ",3\n"),
}

COCO_DAMAGE: dict[str, Corrupt] = {
    "a list": text("[]"),
    "no annotations": text('{"images": []}'),
    "text in bbox": text(COCO.replace("[4, 5, 10, 12]", '["a", 5, 10, 12]')),
    "three numbers": text(COCO.replace("[4, 5, 10, 12]", "[4, 5, 10]")),
    "NaN": text(COCO.replace("[4, 5, 10, 12]", "[NaN, 5, 10, 12]")),
    "infinite": text(COCO.replace("[4, 5, 10, 12]", "[1e999, 5, 10, 12]")),
    "unknown category": text(COCO.replace('"category_id": 1', '"category_id": 9')),
    "other class": text(COCO.replace("ship", "boat")),
    "no category": text(COCO.replace('"category_id": 1, ', "")),
    "images are text": text(COCO.replace('[{"id": 1, "file_name"', '["x", {"id": 1, "file_name"')),
    "deeply nested": text("[" * 100_000),
    "an id with a fraction": text(COCO.replace('"image_id": 1', '"image_id": 1.5')),
    "an empty bbox": text(COCO.replace("[4, 5, 10, 12]", "[]")),
    "two points": text(COCO.replace('"bbox": [4, 5, 10, 12]', '"segmentation": [[1, 2, 3, 4]]')),
    "of labelme": text('{"imagePath": "c.tif", "shapes": []}'),
    "of VIA": text('{"c.tif9": {"filename": "c.tif", "regions": []}}'),
    "bbox is text": text(COCO.replace("[4, 5, 10, 12]", '"box"')),
}

DOTA_DAMAGE: dict[str, Corrupt] = {
    "too few": text("4 5 14 5 14 17 ship 0\n"),
    "text": text("a b c d e f g h ship 0\n"),
    "NaN": text("nan 5 14 5 14 17 4 17 ship 0\n"),
    "other class": text(DOTA.replace("ship", "boat")),
    "not UTF-8": replace_with(b"\xff\xfe\x00 4 5\n"),
}

YOLO_DAMAGE: dict[str, Corrupt] = {
    "too few": text("0 0.5 0.5 0.1\n"),
    "a class name": text("ship 0.5 0.5 0.1 0.1\n"),
    "a class with a fraction": text("0.5 0.5 0.5 0.1 0.1\n"),
    "a negative class": text("-1 0.5 0.5 0.1 0.1\n"),
    "another class": text("7.0 0.5 0.5 0.1 0.1\n"),
    "NaN": text("0 nan 0.5 0.1 0.1\n"),
    "pixels": text("0 24 24 5 5e0\n"),
}


def rotated(**sides: float) -> Corrupt:
    """An object with a `<robndbox>` of these sides."""
    inside = "".join(f"<{name}>{value}</{name}>" for name, value in sides.items())
    content = f"<object><name>ship</name><robndbox>{inside}</robndbox></object>"
    return text(f"<annotation>{content}</annotation>")


VOC_DAMAGE: dict[str, Corrupt] = {
    "Latin-1 without a declaration": replace_with(VOC.replace("ship", "bét").encode("latin-1")),
    "an unknown encoding": text(f'<?xml version="1.0" encoding="klingon"?>{VOC}'),
    "no angle": rotated(cx=20, cy=20, w=9, h=5),
    "degrees": rotated(cx=20, cy=20, w=9, h=5, angle=45),
    "a negative width": rotated(cx=20, cy=20, w=-9, h=5, angle=0.5),
    "not closed": text(VOC.replace("</annotation>", "")),
    "no box": text(VOC.replace("bndbox", "box")),
    "no name": text(VOC.replace("<name>ship</name>", "")),
    "text": text(VOC.replace("<xmin>4", "<xmin>four")),
    "NaN": text(VOC.replace("<xmin>4", "<xmin>nan")),
    "entities": text('<!DOCTYPE a [<!ENTITY b "b">]>' + VOC.replace("ship", "&b;")),
}

TABLE: dict[str, Corrupt] = {
    "no header": text("a.tif,land\n"),
    "no rows": text("path,label\n"),
    "missing image": text("path,label,split\nmissing.tif,land,train\n"),
    "unknown class": text("path,label,split\na.tif,lava,train\n"),
    "unknown split": text("path,label,split\na.tif,land,training\n"),
    "duplicate": text("path,label,split\na.tif,land,train\na.tif,water,train\n"),
    "NUL": replace_with(b"path,label\na.tif,\x00land\n"),
    "not UTF-8": replace_with(b"path,label\n\xff\xfe,land\n"),
    "outside the folder": text("path,label,split\n../../x.tif,land,train\n"),
}


def with_text(old: str, new: str) -> Corrupt:
    """Replace the first occurrence of `old`."""

    def corrupt(path: Path) -> None:
        content = path.read_text()
        assert old in content
        path.write_text(content.replace(old, new, 1))

    return corrupt


def with_rows(change: Callable[[Any], Any]) -> Corrupt:
    """Change the rows or columns of a Parquet file."""

    def corrupt(path: Path) -> None:
        change(pandas.read_parquet(path)).to_parquet(path)

    return corrupt


SCENE_TABLE: dict[str, Corrupt] = {
    "no header": with_text("image,label,split,city\n", ""),
    "no rows": text("image,label\n"),
    "no image": with_text("scenes/c.tif", ""),
    "missing scene": with_text("scenes/c.tif", "scenes/missing.tif"),
    "not a raster": with_text("scenes/c.tif", "listing.csv"),
    "a folder": with_text("scenes/c.tif", "scenes"),
    "another case": with_text("scenes/c.tif", "scenes/C.TIF"),
    "a field": with_text("scenes/c.tif", "scenes/{name}.tif"),
    "a misspelt field": with_text("scenes/c.tif", "scenes/{bands}.tif"),
    "two scenes": with_text("scenes/c.tif", "scenes/*.tif"),
    "on a server": with_text("scenes/c.tif", "https://example.com/c.tif"),
    "in a bucket": with_text("scenes/c.tif", "s3://bucket/c.tif"),
    "a label on a server": with_text("labels/c.tif", "https://example.com/c.tif"),
    "unknown split": with_text("labels/c.tif,train", "labels/c.tif,training"),
    "extra value": with_text("scenes/c.tif", "scenes/c.tif,x"),
    "duplicate": with_text("scenes/c.tif", "scenes/b.tif"),
    "NUL": with_text("scenes/c.tif", "scenes/\0.tif"),
    "not UTF-8": replace_with(b"image,label\nscenes/\xff\xfe.tif,x\n"),
    "unclosed quote": with_text("scenes/c.tif", '"scenes/c.tif'),
    "very long name": with_text("scenes/c.tif", "c" * 200_000),
}

PARQUET: dict[str, Corrupt] = {
    "no rows": with_rows(lambda frame: frame[:0]),
    "no image": with_rows(lambda frame: frame.drop(columns="image")),
    "numbers": with_rows(lambda frame: frame.assign(image=range(len(frame)))),
    "unknown split": with_rows(lambda frame: frame.assign(split="some")),
    "null": with_rows(lambda frame: frame.assign(image=None)),
    "bytes": with_rows(lambda frame: frame.assign(image=b"\xff\xfe")),
    "invalid date": with_rows(lambda frame: frame.assign(date="may")),
}

STAC: dict[str, Corrupt] = {
    "a list": text("[]"),
    "a number": text("3"),
    "no items": text('{"type": "FeatureCollection", "features": []}'),
    "items are text": text('{"type": "FeatureCollection", "features": ["a"]}'),
    "missing scene": with_text("scenes/c.tif", "scenes/missing.tif"),
    "on a server": with_text("scenes/c.tif", "https://example.com/c.tif"),
    "a label on a server": with_text("labels/c.tif", "https://example.com/c.tif"),
    "unknown split": with_text('"train"', '"training"'),
    "invalid date": with_text("2020-02-29T00:00:00Z", "2020-02-31"),
    "duplicate": with_text('"id": "b"', '"id": "a"'),
    "assets are a list": text(
        '{"type": "Feature", "stac_version": "1.0.0", "id": "a", "geometry": null, '
        '"properties": {"datetime": null}, "links": [], "assets": []}'
    ),
    "href is a number": with_text('"scenes/c.tif"', "3"),
    "another version": text('{"type": "Catalog", "stac_version": "9", "id": 3}'),
    "recursive catalogue": text(
        '{"type": "Catalog", "stac_version": "1.0.0", "id": "a", "description": "a", '
        '"links": [{"rel": "child", "href": "./listing.json"}]}'
    ),
    "catalogue of a missing item": text(
        '{"type": "Catalog", "stac_version": "1.0.0", "id": "a", "description": "a", '
        '"links": [{"rel": "item", "href": "./missing.json"}]}'
    ),
    "links are text": text(
        '{"type": "Catalog", "stac_version": "1.0.0", "id": "a", "description": "a", '
        '"links": ["./a.json"]}'
    ),
    "deeply nested": text("[" * 100_000),
}


def without(suffix: str) -> Corrupt:
    """Remove one of the files of a shapefile."""

    def corrupt(path: Path) -> None:
        path.with_suffix(suffix).unlink()

    return corrupt


def damages() -> Iterator[Damage]:
    """All damage, in the same order in every process."""
    image, mask = "scenes/c.tif", "labels/c.tif"
    raster = ("masks", image), ("masks", mask)
    other = [
        ("geojson", "labels/c.geojson"),
        ("shp", "labels/c.shp"),
        ("gpkg", "labels/c.gpkg"),
        ("points", "labels/c.csv"),
        ("coco", "labels/c.json"),
        ("dota", "labels/c.txt"),
        ("voc", "labels/c.xml"),
        ("yolo", "labels/c.txt"),
        ("table", "labels.csv"),
        ("csv", "listing.csv"),
        ("parquet", "listing.parquet"),
        ("stac", "listing.json"),
    ]
    for data, file in (*raster, *other):
        for kind, corrupt in ANY_FILE.items():
            yield Damage(data, file, kind, corrupt)
    for data, file in raster:
        for percent in (1, 2, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 98, 99):
            yield Damage(data, file, f"{percent} %", truncate(percent / 100))
        for start in range(0, 180, 12):
            yield Damage(data, file, f"zeros at {start}", zeros_at(start))
    # text that is cut between two lines or words may still be valid
    percents = {"points": (10,), "dota": (10, 50), "yolo": (10, 50), "table": (10,), "csv": (10,)}
    for data, file in other:
        for percent in percents.get(data, (10, 50, 90)):
            yield Damage(data, file, f"{percent} %", truncate(percent / 100))
    for data, file, damage in (
        ("masks", image, IMAGE),
        ("masks", mask, MASK),
        ("colors", mask, COLORS),
        ("geojson", "labels/c.geojson", GEOJSON),
        ("points", "labels/c.csv", POINTS),
        ("coco", "labels/c.json", COCO_DAMAGE),
        ("dota", "labels/c.txt", DOTA_DAMAGE),
        ("voc", "labels/c.xml", VOC_DAMAGE),
        ("yolo", "labels/c.txt", YOLO_DAMAGE),
        ("table", "labels.csv", TABLE),
        ("csv", "listing.csv", SCENE_TABLE),
        ("parquet", "listing.parquet", PARQUET),
        ("stac", "listing.json", STAC),
    ):
        for kind, corrupt in damage.items():
            yield Damage(data, file, kind, corrupt)
    for suffix in (".shx", ".dbf", ".prj"):
        yield Damage("shp", "labels/c.shp", f"without {suffix}", without(suffix))
    for suffix in (".shx", ".dbf"):
        for kind in ("empty", "noise"):
            file = f"labels/c{suffix}"
            yield Damage("shp", file, kind, ANY_FILE[kind], reported_as="labels/c.")
    for subfolder in ("scenes", "labels"):
        yield Damage("masks", subfolder, "no files", _remove_files)
        yield Damage("masks", subfolder, "no folder", shutil.rmtree)


def _remove_files(path: Path) -> None:
    for file in path.iterdir():
        file.unlink()


def break_block(path: Path, row: int) -> None:
    """Overwrite compressed pixels; the header stays intact."""
    with rasterio.open(path) as file:
        start = int(file.get_tag_item(f"BLOCK_OFFSET_0_{row}", "TIFF", bidx=1))
    with path.open("r+b") as raw:
        raw.seek(start)
        raw.write(bytes(40))
