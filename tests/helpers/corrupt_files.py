"""Small data sets of every kind, and the ways in which their files are damaged."""

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
Spoil = Callable[[Path], None]


@dataclass(frozen=True)
class Damage:
    """One damaged input.

    Attributes:
        data: which data set it is done to.
        file: which of its files, from its folder.
        spoil: what is done to it.
        names: what the message has to name, where that is not the file.
    """

    data: str
    file: str
    what: str
    spoil: Spoil
    names: str = ""

    def __str__(self) -> str:
        return f"{self.data}-{self.file.replace('/', '.')}-{self.what}".replace(" ", "_")


# ---------------------------------------------------------------- data sets
def transform_of(index: int) -> Any:
    return from_origin(500_000 + index * 1000, 5_000_000, 10, 10)


def box_of(index: int) -> Any:
    left, top = transform_of(index) @ (8, 8)
    return box(left, top - 200, left + 200, top)


def write(path: Path, array: Any, index: int, **profile: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = array.shape
    place = {"crs": "EPSG:32633", "transform": transform_of(index)}
    shape = {"count": count, "height": height, "width": width, "dtype": array.dtype}
    with rasterio.open(path, "w", driver="GTiff", **{**shape, **place, **profile}) as file:
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


def listed(suffix: str) -> Callable[[Path], Values]:
    """The scenes of `masks`, which a list names with their labels and parts."""

    def make(folder: Path) -> Values:
        values = masks(folder)
        LISTS[suffix](folder / f"listing.{suffix}")
        values["data"] |= {
            "scenes": str(folder / f"listing.{suffix}"),
            "labels": None,
            "split": {"kind": "column"},
        }
        return values

    return make


def _rows() -> list[dict[str, str]]:
    return [
        {"image": f"scenes/{n}.tif", "label": f"labels/{n}.tif", "split": part, "city": n}
        for part, names in SPLIT.items()
        if part != "kind"
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


LISTS: dict[str, Callable[[Path], None]] = {
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

DATA: dict[str, Callable[[Path], Values]] = {
    "masks": masks,
    "geojson": vectors("geojson"),
    "shp": vectors("shp"),
    "gpkg": vectors("gpkg"),
    "points": points,
    "coco": objects("json", COCO),
    "dota": objects("txt", DOTA),
    "voc": objects("xml", VOC),
    "table": table,
    "csv": listed("csv"),
    "parquet": listed("parquet"),
    "stac": listed("json"),
}


# ---------------------------------------------------------------- what can happen to any file
def cut_to(share: float) -> Spoil:
    def spoil(path: Path) -> None:
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])

    return spoil


def put(content: bytes) -> Spoil:
    def spoil(path: Path) -> None:
        path.write_bytes(content)

    return spoil


def noise(seed: int) -> Spoil:
    return put(np.random.default_rng(seed).bytes(3000))


def zeros_at(start: int, length: int = 12) -> Spoil:
    def spoil(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[start : start + length] = bytes(length)
        path.write_bytes(content)

    return spoil


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def link_to_nowhere(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.parent / "gone")


def link_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def gone(path: Path) -> None:
    path.unlink()


ANY: dict[str, Spoil] = {
    "empty": put(b""),
    "zeros": put(bytes(4000)),
    "noise": noise(0),
    "more noise": noise(1),
    "html": put(b"<!DOCTYPE html><html><body>404 Not Found</body></html>"),
    "zip": put(b"PK\x03\x04" + bytes(200)),
    "folder": folder,
    "link to nowhere": link_to_nowhere,
    "link to itself": link_to_itself,
}


# ---------------------------------------------------------------- rasters
def claim(width: int, height: int, bands: int = 3, *, big: bool = False) -> Spoil:
    """A file of a few hundred bytes that says it is a large image."""
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
        head = b"II+\0" + struct.pack("<HHQQ", 8, 0, 16, len(tags))
        body = b"".join(struct.pack("<HHQQ", tag, kind, 1, value) for tag, kind, value in tags)
        content = head + body + bytes(8)
    else:
        head = b"II*\0" + struct.pack("<IH", 8, len(tags))
        body = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
        content = head + body + bytes(4)
    return put(content + bytes(600))


def anew(change: Callable[[Any], Any] = lambda array: array, **profile: Any) -> Spoil:
    """Written again, with other values or another profile."""

    def spoil(path: Path) -> None:
        with rasterio.open(path) as file:
            array, crs, transform = file.read(), file.crs, file.transform
        array = change(array)
        path.unlink()
        write(path, array, 0, **{"crs": crs, "transform": transform, **profile})

    return spoil


def with_value(value: float, *where: Any) -> Callable[[Any], Any]:
    def change(array: Any) -> Any:
        array[where] = value
        return array

    return change


def other_names(path: Path) -> None:
    with rasterio.open(path, "r+") as file:
        file.descriptions = ("red", "green", "swir")


IMAGE: dict[str, Spoil] = {
    "NaN pixel": anew(with_value(math.nan, 1, 3, 4)),
    "NaN band": anew(with_value(math.nan, 2)),
    "infinite": anew(with_value(math.inf, 0, 0, 0)),
    "minus infinite": anew(with_value(-math.inf, slice(None), 5)),
    "no data at all": anew(with_value(-1, slice(None)), nodata=-1),
    "complex": anew(lambda a: a.astype("complex64")),
    "two bands": anew(lambda a: a[:2]),
    "four bands": anew(lambda a: np.concatenate([a, a[:1]])),
    "other names": other_names,
    "other CRS": anew(crs="EPSG:32633", transform=from_origin(0, 0, 10, 10)),
    "degrees": anew(crs="EPSG:4326"),
    "another zone": anew(crs="EPSG:32760"),
    "no CRS": anew(crs=None),
    "other units": anew(lambda a: a / 10_000),
    "constant": anew(lambda a: np.full_like(a, 7)),
    "claims 10^12 pixels": claim(10**6, 10**6),
    "claims 4 * 10^18 pixels": claim(2**31 - 1, 2**31 - 1),
    "claims a long line": claim(2**31 - 1, 1),
    "claims a high column": claim(1, 2**31 - 1),
    "claims many bands": claim(20_000, 20_000, 60_000),
    "claims 10^12 pixels, BigTIFF": claim(10**6, 10**6, big=True),
    "claims no pixel": claim(0, 0),
}

MASK: dict[str, Spoil] = {
    "smaller": anew(lambda a: a[:, :40], crs=None, transform=None),
    "larger": anew(lambda a: np.pad(a, ((0, 0), (0, 9), (0, 0))), crs=None, transform=None),
    "unknown class": anew(with_value(9, 0, 3, 3)),
    "two bands": anew(lambda a: np.concatenate([a, a])),
    "fractions": anew(lambda a: a.astype("float32") / 3),
    "negative": anew(lambda a: a.astype("int16") - 4),
    "all ignored": anew(with_value(255, slice(None))),
    "elsewhere": anew(transform=from_origin(900_000, 5_000_000, 10, 10)),
    "in degrees": anew(crs="EPSG:4326"),
    "claims 10^12 pixels": claim(10**6, 10**6, 1),
    "claims 4 * 10^18 pixels": claim(2**31 - 1, 2**31 - 1, 1),
    "claims no pixel": claim(0, 0, 1),
}


# ---------------------------------------------------------------- vectors and tables
def text(content: str) -> Spoil:
    return put(content.encode())


def feature(
    geometry: Any, properties: Any = None, crs: str = "urn:ogc:def:crs:EPSG::32633"
) -> Spoil:
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

GEOJSON: dict[str, Spoil] = {
    "no JSON": text("{'type': FeatureCollection}"),
    "a list": text("[1, 2, 3]"),
    "a number": text("3"),
    "null": text("null"),
    "other class": feature(polygon(RING), {"class": "lava"}),
    "no class": feature(polygon(RING), {"class": None}),
    "no field": feature(polygon(RING), {"kind": "water"}),
    "a point": feature({"type": "Point", "coordinates": RING[0]}),
    "a line": feature({"type": "LineString", "coordinates": RING}),
    "words for numbers": feature(polygon([["x", "y"], ["z", "w"], ["x", "y"]])),
    "far away": feature(polygon([[x + 1e6, y] for x, y in RING])),
    "out of this world": feature(polygon([[x * 1e300, y] for x, y in RING])),
    "a CRS that is none": feature(polygon(RING), crs="urn:ogc:def:crs:EPSG::999999"),
    "degrees": feature(polygon(RING), crs="urn:ogc:def:crs:OGC:1.3:CRS84"),
    "NaN": text(json.dumps({"type": "Feature", "geometry": polygon([[math.nan] * 2] * 4)})),
    "deep": text("[" * 100_000),
    "a geometry that is none": feature({"type": "Ball", "coordinates": 3}),
}

POINTS: dict[str, Spoil] = {
    "no header": text("5,6\n7,8\n"),
    "other columns": text("row,col\n5,6\n"),
    "words": text("x,y\nfive,six\n"),
    "NaN": text("x,y\nnan,3\n"),
    "infinite": text("x,y\n3,inf\n"),
    "one number": text("x,y\n3\n"),
    "a quote that never ends": text('x,y\n"3,4\n5,6\n'),
    "NUL": put(b"x,y\n3,\x004\n"),
    "no UTF-8": put(b"x,y\n\xff\xfe,3\n"),
    "far outside": text("x,y\n90000,90000\n"),
    "a field of a megabyte": text("x,y\n" + "1" * 1_000_000 + ",3\n"),
}

COCO_FAULTS: dict[str, Spoil] = {
    "a list": text("[]"),
    "no annotations": text('{"images": []}'),
    "no number": text(COCO.replace("[4, 5, 10, 12]", '["a", 5, 10, 12]')),
    "three numbers": text(COCO.replace("[4, 5, 10, 12]", "[4, 5, 10]")),
    "NaN": text(COCO.replace("[4, 5, 10, 12]", "[NaN, 5, 10, 12]")),
    "infinite": text(COCO.replace("[4, 5, 10, 12]", "[1e999, 5, 10, 12]")),
    "unknown category": text(COCO.replace('"category_id": 1', '"category_id": 9')),
    "other class": text(COCO.replace("ship", "boat")),
    "no category": text(COCO.replace('"category_id": 1, ', "")),
    "images are words": text(COCO.replace('[{"id": 1, "file_name"', '["x", {"id": 1, "file_name"')),
    "deep": text("[" * 100_000),
    "bbox is a word": text(COCO.replace("[4, 5, 10, 12]", '"box"')),
}

DOTA_FAULTS: dict[str, Spoil] = {
    "too few": text("4 5 14 5 14 17 ship 0\n"),
    "words": text("a b c d e f g h ship 0\n"),
    "NaN": text("nan 5 14 5 14 17 4 17 ship 0\n"),
    "other class": text(DOTA.replace("ship", "boat")),
    "no UTF-8": put(b"\xff\xfe\x00 4 5\n"),
}

VOC_FAULTS: dict[str, Spoil] = {
    "not closed": text(VOC.replace("</annotation>", "")),
    "no box": text(VOC.replace("bndbox", "box")),
    "no name": text(VOC.replace("<name>ship</name>", "")),
    "words": text(VOC.replace("<xmin>4", "<xmin>four")),
    "NaN": text(VOC.replace("<xmin>4", "<xmin>nan")),
    "entities": text('<!DOCTYPE a [<!ENTITY b "b">]>' + VOC.replace("ship", "&b;")),
}

TABLE: dict[str, Spoil] = {
    "no header": text("a.tif,land\n"),
    "no rows": text("path,label\n"),
    "no such image": text("path,label,split\ngone.tif,land,train\n"),
    "no such class": text("path,label,split\na.tif,lava,train\n"),
    "no such part": text("path,label,split\na.tif,land,training\n"),
    "twice": text("path,label,split\na.tif,land,train\na.tif,water,train\n"),
    "NUL": put(b"path,label\na.tif,\x00land\n"),
    "no UTF-8": put(b"path,label\n\xff\xfe,land\n"),
    "out of the folder": text("path,label,split\n../../x.tif,land,train\n"),
}


def with_text(old: str, new: str) -> Spoil:
    """With other text in the place of some, where it first stands."""

    def spoil(path: Path) -> None:
        content = path.read_text()
        assert old in content
        path.write_text(content.replace(old, new, 1))

    return spoil


def with_rows(change: Callable[[Any], Any]) -> Spoil:
    """A Parquet of other rows or columns."""

    def spoil(path: Path) -> None:
        change(pandas.read_parquet(path)).to_parquet(path)

    return spoil


LIST: dict[str, Spoil] = {
    "no header": with_text("image,label,split,city\n", ""),
    "no rows": text("image,label\n"),
    "no image": with_text("scenes/c.tif", ""),
    "gone": with_text("scenes/c.tif", "scenes/gone.tif"),
    "no raster": with_text("scenes/c.tif", "listing.csv"),
    "a folder": with_text("scenes/c.tif", "scenes"),
    "two scenes": with_text("scenes/c.tif", "scenes/*.tif"),
    "on a server": with_text("scenes/c.tif", "https://example.com/c.tif"),
    "in a bucket": with_text("scenes/c.tif", "s3://bucket/c.tif"),
    "a label on a server": with_text("labels/c.tif", "https://example.com/c.tif"),
    "no such part": with_text("labels/c.tif,train", "labels/c.tif,training"),
    "one value more": with_text("scenes/c.tif", "scenes/c.tif,x"),
    "twice": with_text("scenes/c.tif", "scenes/b.tif"),
    "NUL": with_text("scenes/c.tif", "scenes/\0.tif"),
    "no UTF-8": put(b"image,label\nscenes/\xff\xfe.tif,x\n"),
    "a quote that never ends": with_text("scenes/c.tif", '"scenes/c.tif'),
    "a name without end": with_text("scenes/c.tif", "c" * 200_000),
}

PARQUET: dict[str, Spoil] = {
    "no rows": with_rows(lambda frame: frame[:0]),
    "no image": with_rows(lambda frame: frame.drop(columns="image")),
    "numbers": with_rows(lambda frame: frame.assign(image=range(len(frame)))),
    "no such part": with_rows(lambda frame: frame.assign(split="some")),
    "null": with_rows(lambda frame: frame.assign(image=None)),
    "bytes": with_rows(lambda frame: frame.assign(image=b"\xff\xfe")),
    "no such day": with_rows(lambda frame: frame.assign(date="may")),
}

ITEMS: dict[str, Spoil] = {
    "a list": text("[]"),
    "a number": text("3"),
    "no items": text('{"type": "FeatureCollection", "features": []}'),
    "items are words": text('{"type": "FeatureCollection", "features": ["a"]}'),
    "gone": with_text("scenes/c.tif", "scenes/gone.tif"),
    "on a server": with_text("scenes/c.tif", "https://example.com/c.tif"),
    "a label on a server": with_text("labels/c.tif", "https://example.com/c.tif"),
    "no such part": with_text('"train"', '"training"'),
    "no day": with_text("2020-02-29T00:00:00Z", "2020-02-31"),
    "twice": with_text('"id": "b"', '"id": "a"'),
    "assets are a list": text(
        '{"type": "Feature", "stac_version": "1.0.0", "id": "a", "geometry": null, '
        '"properties": {"datetime": null}, "links": [], "assets": []}'
    ),
    "href is a number": with_text('"scenes/c.tif"', "3"),
    "another version": text('{"type": "Catalog", "stac_version": "9", "id": 3}'),
    "a catalogue of itself": text(
        '{"type": "Catalog", "stac_version": "1.0.0", "id": "a", "description": "a", '
        '"links": [{"rel": "child", "href": "./listing.json"}]}'
    ),
    "a catalogue of nothing": text(
        '{"type": "Catalog", "stac_version": "1.0.0", "id": "a", "description": "a", '
        '"links": [{"rel": "item", "href": "./gone.json"}]}'
    ),
    "links are words": text(
        '{"type": "Catalog", "stac_version": "1.0.0", "id": "a", "description": "a", '
        '"links": ["./a.json"]}'
    ),
    "deep": text("[" * 100_000),
}


def without(suffix: str) -> Spoil:
    """A shapefile without one of its files."""

    def spoil(path: Path) -> None:
        path.with_suffix(suffix).unlink()

    return spoil


def damages() -> Iterator[Damage]:
    """All of them, the same in every process."""
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
        ("table", "labels.csv"),
        ("csv", "listing.csv"),
        ("parquet", "listing.parquet"),
        ("stac", "listing.json"),
    ]
    for data, file in (*raster, *other):
        for what, spoil in ANY.items():
            yield Damage(data, file, what, spoil)
    for data, file in raster:
        for percent in (1, 2, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 98, 99):
            yield Damage(data, file, f"{percent} %", cut_to(percent / 100))
        for start in range(0, 180, 12):
            yield Damage(data, file, f"zeros at {start}", zeros_at(start))
    # lines of text that are cut between two words are whole lines
    readable = {"points": (10,), "dota": (10, 50), "table": (10,), "csv": (10,)}
    for data, file in other:
        for percent in readable.get(data, (10, 50, 90)):
            yield Damage(data, file, f"{percent} %", cut_to(percent / 100))
    for data, file, ways in (
        ("masks", image, IMAGE),
        ("masks", mask, MASK),
        ("geojson", "labels/c.geojson", GEOJSON),
        ("points", "labels/c.csv", POINTS),
        ("coco", "labels/c.json", COCO_FAULTS),
        ("dota", "labels/c.txt", DOTA_FAULTS),
        ("voc", "labels/c.xml", VOC_FAULTS),
        ("table", "labels.csv", TABLE),
        ("csv", "listing.csv", LIST),
        ("parquet", "listing.parquet", PARQUET),
        ("stac", "listing.json", ITEMS),
    ):
        for what, spoil in ways.items():
            yield Damage(data, file, what, spoil)
    for suffix in (".shx", ".dbf", ".prj"):
        yield Damage("shp", "labels/c.shp", f"without {suffix}", without(suffix))
    for suffix in (".shx", ".dbf"):
        for what in ("empty", "noise"):
            file = f"labels/c{suffix}"
            yield Damage("shp", file, what, ANY[what], names="labels/c.")
    for part in ("scenes", "labels"):
        for what in ("no files", "no folder"):
            yield Damage("masks", part, what, _emptied if what == "no files" else shutil.rmtree)


def _emptied(path: Path) -> None:
    for file in path.iterdir():
        file.unlink()
