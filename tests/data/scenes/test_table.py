"""Scenes listed in CSV, GeoParquet and STAC: the same content gives the same scenes."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shapely.geometry import box

from geotune.config.split_options import ColumnSplitOptions
from geotune.data.issues import ErrorCollector
from geotune.data.labels.open_labels import open_labels
from geotune.data.raster.windows import Window
from geotune.data.scenes.open_scenes import list_scenes, open_rasters, open_scenes
from geotune.data.splits.explicit import split_by_column
from helpers.errors import raises

Write = Callable[..., Path]
READ = partial(open_labels, classes=["background", "ship"])
DAYS = {"a": "2019-05-14", "b": "2020-02-29"}
PARTS = {"a": "train", "b": "val"}


@pytest.fixture
def files(tmp_path: Path, write_raster: Write, write_polygons: Write) -> Path:
    """Two scenes with a file for each band, and their labels elsewhere."""
    for i, name in enumerate(DAYS):
        for j, band in enumerate(("B02", "B03")):
            values = np.full((6, 6), 10 * i + j + 1, "uint8")
            write_raster(f"images/{name}/{name}_{band}.tif", values)
        write_polygons(f"truth/{name}_ships.geojson", [box(0, 0, 3, 3)])
    return tmp_path


def as_csv(folder: Path) -> Path:
    lines = ["image,label,split,date,name,city"]
    for name in DAYS:
        image, label = f"images/{name}/{{scene}}_{{band}}.tif", f"truth/{name}_ships.geojson"
        lines.append(f"{image},{label},{PARTS[name]},{DAYS[name]},,port {name}")
    path = folder / "scenes.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def as_parquet(folder: Path) -> Path:
    import geopandas

    header, *rows = [line.split(",") for line in as_csv(folder).read_text().splitlines()]
    columns = {name: [row[i] for row in rows] for i, name in enumerate(header)}
    frame = geopandas.GeoDataFrame(columns, geometry=[box(0, 0, 1, 1)] * 2, crs=4326)
    frame.to_parquet(folder / "scenes.parquet")
    return folder / "scenes.parquet"


def item(name: str, **asset: Any) -> dict[str, Any]:
    assets = {
        band: {"href": f"images/{name}/{name}_{band}.tif", "roles": ["data"]}
        for band in ("B02", "B03")
    }
    assets["truth"] = {"href": f"truth/{name}_ships.geojson", "roles": ["labels"]}
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "geometry": None,
        "properties": {
            "datetime": f"{DAYS[name]}T10:00:00Z",
            "split": PARTS[name],
            "city": f"port {name}",
        },
        "assets": assets | asset,
        "links": [],
    }


def as_items(folder: Path) -> Path:
    path = folder / "items.json"
    path.write_text(
        json.dumps({"type": "FeatureCollection", "features": [item(name) for name in DAYS]})
    )
    return path


def as_catalogue(folder: Path) -> Path:
    links = [{"rel": "item", "href": f"./{name}.json"} for name in DAYS]
    for name in DAYS:
        (folder / f"{name}.json").write_text(json.dumps(item(name)))
    about = {"type": "Catalog", "stac_version": "1.0.0", "id": "all", "description": "all"}
    path = folder / "catalog.json"
    path.write_text(json.dumps({**about, "links": links}))
    return path


@pytest.mark.parametrize("written", [as_csv, as_parquet, as_items, as_catalogue])
def test_every_table_format_gives_the_same_scenes(
    files: Path, written: Callable[[Path], Path]
) -> None:
    scenes = open_scenes(READ, scenes=str(written(files)), wanted_bands=["B03", "B02"])
    assert [scene.name for scene in scenes] == ["a", "b"]
    for i, scene in enumerate(scenes):
        assert scene.raster.bands == ("B03", "B02")
        assert scene.raster.acquired == date.fromisoformat(DAYS[scene.name])
        assert scene.attributes["city"] == f"port {scene.name}"
        image, target = scene.read(Window(0, 0, *scene.shape))
        assert image[:, 0, 0].tolist() == [10 * i + 2, 10 * i + 1]
        assert target.mask[1, 1] == 1 and target.mask[5, 5] == 0
    parts = split_by_column(scenes, ColumnSplitOptions())
    assert {part: [scene.name for scene in result] for part, result in parts.items()} == {
        "train": ["a"], "val": ["b"], "test": [],
    }  # fmt: skip


def test_table_without_labels_uses_the_pattern(files: Path) -> None:
    (files / "plain.csv").write_text("image\nimages/a/{scene}_{band}.tif\n")
    lists = str(files / "plain.csv")
    [scene] = open_scenes(READ, scenes=lists, labels=f"{files}/truth/{{stem}}_ships.geojson")
    assert scene.labels.path.name == "a_ships.geojson" and scene.split is None
    with raises("labels-missing", key="data.labels"):
        open_scenes(READ, scenes=lists)
    assert list(open_rasters([lists, f"{files}/images/b/{{scene}}_{{band}}.tif"])) == ["b", "a"]


@pytest.mark.parametrize(
    ("text", "code", "mentions"),
    [
        ("path\na.tif\n", "column-missing", ["columns path", "expected image"]),
        ("", "column-missing", ["columns none"]),
        ("image\n", "scenes-missing", []),
        ("image,city\n,x\n", "row-invalid", ["line 2", "image"]),
        ("image,city\na\n", "row-invalid", ["line 2", "1 values", "2 columns"]),
        ("image\nhttps://x.org/a.tif\n", "file-remote", ["line 2", "https://x.org/a.tif"]),
        ("image\ns3://x/a.tif\n", "file-remote", ["line 2", "s3://x/a.tif"]),
        (
            "image,label\nimages/a/a_B02.tif,https://x.org/a.geojson\n",
            "file-remote",
            ["line 2", "https://x.org/a.geojson"],
        ),
        ("image\ngone.tif\n", "scenes-missing", ["line 2", "gone.tif"]),
        (
            "image\nimages/*/*_B02.tif\n",
            "row-invalid",
            ["line 2", "images/*/*_B02.tif", "2 scenes"],
        ),
        ("image,split\nimages/a/a_B02.tif,training\n", "row-invalid", ["line 2", "'training'"]),
        ("image,date\nimages/a/a_B02.tif,may\n", "row-invalid", ["line 2", "'may'"]),
        (
            "image\nimages/a/a_B02.tif\nimages/a/a_B02.tif\n",
            "scene-duplicate",
            ["line 3", "a_B02"],
        ),
    ],
)
def test_invalid_csv_raises(files: Path, text: str, code: str, mentions: list[str]) -> None:
    (files / "scenes.csv").write_text(text)
    with raises(code, mentions=["scenes.csv", *mentions]):
        list_scenes(str(files / "scenes.csv"))


def test_errors_about_rows_can_be_collected(files: Path) -> None:
    path = as_csv(files)
    path.write_text(path.read_text() + "gone.tif,,,,,x\n")
    errors = ErrorCollector(keep=True)
    assert list(list_scenes(str(path), wanted_bands=["B02"], errors=errors)) == ["a", "b"]
    assert [one.scene for one in errors.issues] == ["gone.tif"]


def test_damaged_and_missing_tables_raise(files: Path) -> None:
    for name in ("no.json", "no.parquet"):
        (files / name).write_bytes(b'{"type": "Polygon"}')
        with raises("file-unreadable", file=files / name):
            list_scenes(str(files / name))
        with raises("file-missing", file=files / f"not_{name}"):
            list_scenes(str(files / f"not_{name}"))


def test_items_with_unusable_assets_raise(files: Path) -> None:
    path = files / "one.json"
    far = {"href": "https://example.com/x.tif", "roles": ["data"]}
    for asset, bands, code, mentions in (
        ({"B02": far}, ["B02"], "file-remote", ["https://example.com/x.tif"]),
        ({"B02": far | {"href": "gone.tif"}}, ["B02"], "file-missing", ["gone.tif"]),
        ({}, ["B08"], "band-missing", ["B02, B03", "B08"]),
        ({}, None, "band-missing", ["B02, B03"]),
    ):
        path.write_text(json.dumps(item("a", **asset)))
        with raises(code, mentions=["item a", *mentions]):
            list_scenes(str(path), wanted_bands=bands)


def test_asset_with_all_bands_and_asset_that_names_its_band(
    files: Path, write_raster: Write
) -> None:
    whole = write_raster("whole.tif", np.ones((2, 6, 6), "uint8"), bands=["B02", "B03"])
    one = item("a")
    one["assets"] = {"data": {"href": whole.name, "bands": [{"name": "B02"}, {"name": "B03"}]}}
    one["assets"]["thumbnail"] = {"href": "small.png", "roles": ["thumbnail"]}
    (files / "a.json").write_text(json.dumps(one))
    assert list_scenes(str(files / "a.json"))["a"].files == whole
    one = item("a")
    one["assets"]["x"] = {**one["assets"].pop("B02"), "eo:bands": [{"name": "B02"}]}
    (files / "a.json").write_text(json.dumps(one))
    result: Any = list_scenes(str(files / "a.json"), wanted_bands=["B02"])["a"].files
    assert result["B02"].name == "a_B02.tif"


def test_catalogue_never_opens_a_connection(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise AssertionError("a connection was asked for")

    monkeypatch.setattr("socket.socket.connect", refused)
    monkeypatch.setattr("socket.getaddrinfo", refused)
    path = as_catalogue(files)
    values = json.loads(path.read_text())
    server = "https://example.com/catalog.json"
    values["links"] += [{"rel": rel, "href": server} for rel in ("self", "root", "parent")]
    for name in DAYS:
        own = json.loads((files / f"{name}.json").read_text())
        own["links"] += [{"rel": rel, "href": server} for rel in ("root", "parent", "collection")]
        (files / f"{name}.json").write_text(json.dumps(own))
    path.write_text(json.dumps(values))
    assert list(list_scenes(str(path), wanted_bands=["B02"])) == ["a", "b"]
    for rel in ("item", "child"):
        far = {"rel": rel, "href": f"https://example.com/{rel}.json"}
        path.write_text(json.dumps({**values, "links": [*values["links"], far]}))
        with raises("file-remote", mentions=[f"{rel}.json"]):
            list_scenes(str(path), wanted_bands=["B02"])


def test_scenes_without_data_labels_raise(files: Path) -> None:
    with raises("labels-missing", key="data.labels", file=files / "images/a/a_B02.tif"):
        open_scenes(READ, scenes=f"{files}/images/a/a_B02.tif")
    with raises("file-remote", mentions=["s3://x/*.tif"]):
        open_scenes(READ, scenes="s3://x/*.tif", labels="{stem}.tif")
