"""Scenes that a CSV, a GeoParquet or STAC items name: all say the same, so all give the same."""

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

from geotune.data.issues import ErrorCollector
from geotune.data.labels.open_labels import open_labels
from geotune.data.raster.windows import Window
from geotune.data.scenes.open_scenes import list_scenes, open_rasters, open_scenes
from geotune.data.splits.explicit import split_by_column
from geotune.errors import GeotuneError

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
def test_every_kind_of_list_gives_the_same_scenes(
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
    parts = split_by_column(scenes)
    assert {part: [scene.name for scene in found] for part, found in parts.items()} == {
        "train": ["a"], "val": ["b"], "test": [],
    }  # fmt: skip


def test_a_list_without_labels_takes_those_of_the_pattern(files: Path) -> None:
    (files / "plain.csv").write_text("image\nimages/a/{scene}_{band}.tif\n")
    lists = str(files / "plain.csv")
    [scene] = open_scenes(READ, scenes=lists, labels=f"{files}/truth/{{stem}}_ships.geojson")
    assert scene.labels.path.name == "a_ships.geojson" and scene.split is None
    with pytest.raises(GeotuneError, match=r"its list says no label file; give data\.labels"):
        open_scenes(READ, scenes=lists)
    assert list(open_rasters([lists, f"{files}/images/b/{{scene}}_{{band}}.tif"])) == ["b", "a"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("path\na.tif\n", r"scenes\.csv: has the columns path; expected image"),
        ("", r"scenes\.csv: has the columns none; expected image"),
        ("image\n", r"scenes\.csv: names no scene"),
        ("image,city\n,x\n", r"line 2: has no image"),
        ("image,city\na\n", r"line 2: has 1 values for 2 columns"),
        ("image\nhttps://x.org/a.tif\n", r"line 2: https://x\.org/a\.tif: is not on this machine"),
        ("image\ns3://x/a.tif\n", r"line 2: s3://x/a\.tif: is not on this machine"),
        (
            "image,label\nimages/a/a_B02.tif,https://x.org/a.geojson\n",
            r"line 2: https://x\.org/a\.geojson: is not on this machine",
        ),
        ("image\ngone.tif\n", r"line 2: .*gone\.tif: there is no file"),
        ("image\nimages/*/*_B02.tif\n", r"line 2: images/\*/\*_B02\.tif finds 2 scenes"),
        ("image,split\nimages/a/a_B02.tif,training\n", r"line 2: split is 'training'; expected"),
        ("image,date\nimages/a/a_B02.tif,may\n", r"line 2: date is 'may'; expected one such as"),
        ("image\nimages/a/a_B02.tif\nimages/a/a_B02.tif\n", r"line 3: a scene is called a_B02 al"),
    ],
)
def test_what_is_wrong_with_a_csv_is_named(files: Path, text: str, said: str) -> None:
    (files / "scenes.csv").write_text(text)
    with pytest.raises(GeotuneError, match=said):
        list_scenes(str(files / "scenes.csv"))


def test_bad_rows_are_kept_where_they_are_asked_to_be(files: Path) -> None:
    path = as_csv(files)
    path.write_text(path.read_text() + "gone.tif,,,,,x\n")
    faults = ErrorCollector(keep=True)
    assert list(list_scenes(str(path), wanted_bands=["B02"], faults=faults)) == ["a", "b"]
    assert [one.scene for one in faults.issues] == ["gone.tif"]


def test_damaged_lists_are_named(files: Path) -> None:
    for name, said in (
        ("no.json", r"no\.json: is no STAC item, collection or catalogue"),
        ("no.parquet", r"no\.parquet: cannot be read as Parquet"),
    ):
        (files / name).write_bytes(b'{"type": "Polygon"}')
        with pytest.raises(GeotuneError, match=said):
            list_scenes(str(files / name))
        with pytest.raises(GeotuneError, match=r"there is no such list of scenes"):
            list_scenes(str(files / f"not_{name}"))


def test_items_whose_assets_do_not_serve_are_named(files: Path) -> None:
    path = files / "one.json"
    far = {"href": "https://example.com/x.tif", "roles": ["data"]}
    for asset, bands, said in (
        ({"B02": far}, ["B02"], r"item a: https://example\.com/x\.tif: is not on this machine"),
        ({"B02": far | {"href": "gone.tif"}}, ["B02"], r"item a: there is no file .*gone\.tif"),
        ({}, ["B08"], r"item a: has the images B02, B03; name those to read .* found B08"),
        ({}, None, r"item a: has the images B02, B03; name those to read"),
    ):
        path.write_text(json.dumps(item("a", **asset)))
        with pytest.raises(GeotuneError, match=said):
            list_scenes(str(path), wanted_bands=bands)


def test_an_asset_may_hold_every_band_or_say_its_band(files: Path, write_raster: Write) -> None:
    whole = write_raster("whole.tif", np.ones((2, 6, 6), "uint8"), bands=["B02", "B03"])
    one = item("a")
    one["assets"] = {"data": {"href": whole.name, "bands": [{"name": "B02"}, {"name": "B03"}]}}
    one["assets"]["thumbnail"] = {"href": "small.png", "roles": ["thumbnail"]}
    (files / "a.json").write_text(json.dumps(one))
    assert list_scenes(str(files / "a.json"))["a"].files == whole
    one = item("a")
    one["assets"]["x"] = {**one["assets"].pop("B02"), "eo:bands": [{"name": "B02"}]}
    (files / "a.json").write_text(json.dumps(one))
    found: Any = list_scenes(str(files / "a.json"), wanted_bands=["B02"])["a"].files
    assert found["B02"].name == "a_B02.tif"


def test_a_catalogue_never_leads_to_the_network(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
        with pytest.raises(GeotuneError, match=rf"{rel}\.json: is not on this machine; fetch"):
            list_scenes(str(path), wanted_bands=["B02"])


def test_images_without_labels_ask_for_them(files: Path) -> None:
    with pytest.raises(GeotuneError, match=r"a_B02\.tif: has no label file; give data\.labels"):
        open_scenes(READ, scenes=f"{files}/images/a/a_B02.tif")
    with pytest.raises(GeotuneError, match=r"s3://x/\*\.tif: is not on this machine"):
        open_scenes(READ, scenes="s3://x/*.tif", labels="{stem}.tif")
