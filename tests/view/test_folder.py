"""What is recognised in a folder of predictions."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
import torch
from rasterio.transform import from_origin

from geotune.data.raster.open_raster import open_raster
from geotune.errors import GeotuneError
from geotune.inference.novelty import NoveltyReference
from geotune.inference.novelty_map import NoveltyTracker
from geotune.inference.regression import regress_scene
from geotune.inference.sliding_window import WindowOptions
from geotune.view.features import MAX_FEATURES, collection
from geotune.view.layers import FeatureLayer, RasterLayer
from geotune.view.open_content import open_content
from helpers.inference_scenes import write_scene
from helpers.view_folder import CLASSES, SIDE, write_folder


def titles(folder: Path, name: str, **options: object) -> list[str]:
    content = open_content([folder], folder, **options)  # type: ignore[arg-type]
    return [layer.title for layer in content.scene(name).layers]


def test_the_image_is_that_of_the_project_or_the_option(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    assert titles(folder, "harbour")[0] == "image"
    moved = tmp_path / "moved"
    moved.mkdir()
    shutil.move(tmp_path / "harbour.tif", moved / "harbour.tif")
    content = open_content([folder], tmp_path)
    assert content.scene("harbour").layers[0].title == "confidence"
    assert "--scenes" in content.scene("harbour").notes[0]
    assert titles(folder, "harbour", scenes=[f"{moved}/*.tif"])[0] == "image"


@pytest.mark.parametrize("stated", ["pipe", "p" * 300, "", None])
def test_an_item_whose_image_cannot_be_opened_hides_the_image_only(
    tmp_path: Path, stated: str | None
) -> None:
    folder = write_folder(tmp_path)
    (folder / "harbour.qgs").unlink()
    os.mkfifo(folder / "pipe")  # opening it would never end
    text = json.dumps({"links": [{"rel": "derived_from", "href": stated}]})
    if stated is None:
        text = '{"links": ' + "[" * 100_000 + "]" * 100_000 + "}"
    (folder / "harbour_item.json").write_text(text)
    assert titles(folder, "harbour")[0] == "confidence"


@pytest.mark.parametrize(
    "text",
    [
        "", "<qgis>", "<qgis><maplayer/></qgis>",
        "<qgis><maplayer type='raster'><datasource>/etc/passwd</datasource></maplayer></qgis>",
        "<qgis><maplayer type='raster'><datasource>/vsicurl/http://127.0.0.1:9/a.tif</datasource>"
        "</maplayer></qgis>",
        "<!DOCTYPE q [<!ENTITY a 'aaaaaaaaaa'>]><q>&a;</q>",
    ],
)  # fmt: skip
def test_a_damaged_project_hides_the_image_only(tmp_path: Path, text: str) -> None:
    folder = write_folder(tmp_path)
    (folder / "harbour.qgs").write_text(text)
    assert titles(folder, "harbour")[0] == "confidence"


def test_a_map_of_numbers(tmp_path: Path) -> None:
    image = np.linspace(0, 100, 64 * 64, dtype=np.float32).reshape(1, 64, 64)
    source = write_scene(tmp_path / "field_a.tif", image, bands=("red",))
    regress_scene(
        lambda images: images[:, :1],
        source,
        tmp_path / "maps",
        WindowOptions(bands=("red",), window=32),
        quantity="crop height",
        unit="m",
        name="field_a",
    )
    content = open_content([tmp_path / "maps"], tmp_path)
    assert content.names == ["field_a"]
    layer = content.scene("field_a").layers[-1]
    assert isinstance(layer, RasterLayer)
    assert layer.title == "crop height"
    assert layer.style.legend["low"] == "1 m" and layer.style.legend["high"] == "99 m"
    grid = content.scene("field_a").grid
    (lon,), (lat,) = grid.lonlat(np.array([32.5]), np.array([32.5]))
    ((name, value),) = layer.describe(grid, lon, lat)
    assert name == "crop height" and value == "50.8 m"


def test_objects_alone_are_shown(tmp_path: Path) -> None:
    frame = geopandas.GeoDataFrame(
        {"class": ["ship", "crane"], "score": [0.9, np.nan]},
        geometry=[shapely.box(0, 0, 100, 50), shapely.box(200, 0, 230, 50)],
        crs="EPSG:32633",
    ).set_geometry("geometry")
    frame.geometry = frame.translate(500_000, 5_000_000)
    frame.to_file(tmp_path / "port_objects.gpkg", layer="objects")
    content = open_content([tmp_path], tmp_path)
    scene = content.scene("port")
    (layer,) = scene.layers
    assert isinstance(layer, FeatureLayer)
    assert layer.classes == ("crane", "ship")
    shapes = layer.features(scene.grid)["features"]
    assert [shape["properties"] for shape in shapes] == [
        {"class": "ship", "score": 0.9},
        {"class": "crane", "score": None},
    ]
    west, south, east, north = scene.grid.bounds
    assert all(
        west - 1e-6 <= lon <= east + 1e-4 and south - 1e-4 <= lat <= north + 1e-6
        for shape in shapes
        for lon, lat in shape["geometry"]["coordinates"][0]
    )


def test_a_table_of_images(tmp_path: Path) -> None:
    image = np.ones((1, 16, 16), np.float32)
    write_scene(tmp_path / "chip.tif", image, bands=("red",))
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "images.csv").write_text(
        "image,path,label,water,land\nchip,../chip.tif,water,0.75,0.25\nlost,gone.tif,land,0,1\n"
    )
    content = open_content([tmp_path / "maps"], tmp_path)
    scene = content.scene("chip")
    assert [layer.title for layer in scene.layers] == ["image"]
    assert scene.facts == [
        ("predicted label", "water"), ("predicted water", "0.75"), ("predicted land", "0.25"),
    ]  # fmt: skip
    with pytest.raises(GeotuneError, match=r"gone\.tif: the image of the scene is not there"):
        content.scene("lost")


def test_a_mosaic_is_a_scene(tmp_path: Path) -> None:
    """A VRT of the class maps of two scenes."""
    folder = write_folder(tmp_path, "one")
    right = from_origin(500_960, 5_000_000, 10, 10)
    write_folder(tmp_path, "two", transform=right)
    sources = "".join(
        f"<SimpleSource><SourceFilename relativeToVRT='1'>{name}_classes.tif</SourceFilename>"
        f"<SourceBand>1</SourceBand><SrcRect xOff='0' yOff='0' xSize='96' ySize='96'/>"
        f"<DstRect xOff='{offset}' yOff='0' xSize='96' ySize='96'/></SimpleSource>"
        for name, offset in (("one", 0), ("two", 96))
    )
    tags = "".join(
        f"<MDI key='class_{i}'>{name}</MDI>"
        for i, name in enumerate(("background", "water", "ship"))
    )
    (folder / "all.vrt").write_text(
        "<VRTDataset rasterXSize='192' rasterYSize='96'><SRS>EPSG:32633</SRS>"
        "<GeoTransform>500000, 10, 0, 5000000, 0, -10</GeoTransform>"
        f"<VRTRasterBand dataType='Byte' band='1'><Metadata>{tags}</Metadata>"
        f"<NoDataValue>255</NoDataValue>{sources}</VRTRasterBand></VRTDataset>"
    )
    content = open_content([folder], tmp_path)
    assert content.names == ["all", "one", "two"]
    scene = content.scene("all")
    (layer,) = scene.layers
    assert isinstance(layer, RasterLayer)
    found = []
    for col in (50.5, 90.5, 100.5, 150.5, 190.5):
        (lon,), (lat,) = scene.grid.lonlat(np.array([col]), np.array([50.5]))
        found += [value for _, value in layer.describe(scene.grid, lon, lat)]
    assert found == ["water", "ship", "background", "water", "ship"]


def test_shapes_have_the_colours_of_the_class_map(tmp_path: Path) -> None:
    scene = open_content([write_folder(tmp_path)], tmp_path).scene("harbour")
    (shapes,) = (layer for layer in scene.layers if isinstance(layer, FeatureLayer))
    assert shapes.colored_as == CLASSES  # though the file has no background
    assert set(shapes.classes) == set(CLASSES) - {"background"}


def test_a_map_of_many_scenes_shows_its_scenes(tmp_path: Path) -> None:
    """As `geotune map` writes it: the plan, and the maps in a folder beside it."""
    (tmp_path / "map").mkdir()
    (tmp_path / "map" / "plan.json").write_text("{}")
    write_folder(tmp_path).rename(tmp_path / "map" / "scenes")
    content = open_content([tmp_path / "map"], tmp_path)
    assert (content.title, content.names) == ("map", ["harbour"])


def test_a_map_of_several_runs_shows_all_of_them(tmp_path: Path) -> None:
    for run in ("land", "ships"):
        (tmp_path / "map" / run).mkdir(parents=True)
        (tmp_path / "map" / run / "plan.json").write_text("{}")
        write_folder(tmp_path).rename(tmp_path / "map" / run / "scenes")
    (tmp_path / "map" / ".DS_Store").write_text("of a file manager")
    content = open_content([tmp_path / "map"], tmp_path)
    assert (content.title, content.names) == ("land, ships", ["harbour"])
    titles = {layer.title for layer in content.scene("harbour").layers}
    assert {"classes (land)", "classes (ships)"} <= titles


def test_maps_on_another_grid_are_placed_by_their_own(tmp_path: Path) -> None:
    """A run with `data.resolution` maps at another pixel size."""
    folder = write_folder(tmp_path)
    coarse = folder / "harbour_classes.tif"
    with rasterio.open(coarse) as file:
        values, tags = file.read(1)[::2, ::2], file.tags(1)
    with rasterio.open(
        coarse, "w", driver="GTiff", count=1, height=48, width=48, dtype="uint8", nodata=255,
        crs="EPSG:32633", transform=from_origin(500_000, 5_000_000, 20, 20),
    ) as file:  # fmt: skip
        file.write(values, 1)
        file.update_tags(1, **tags)
    scene = open_content([folder], tmp_path).scene("harbour")
    layer = next(layer for layer in scene.layers if layer.title == "classes")
    assert isinstance(layer, RasterLayer) and layer.grid is not None
    (lon,), (lat,) = scene.grid.lonlat(np.array([80.5]), np.array([50.5]))
    assert layer.describe(scene.grid, lon, lat) == [("class", "ship")]


def test_novelty_and_features_are_layers_and_not_the_image(tmp_path: Path) -> None:
    """They are in the project too, or beside the maps: `predict --novelty`, `embed`."""
    folder = write_folder(tmp_path)
    image = open_raster(tmp_path / "harbour.tif")
    features = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    reference = NoveltyReference.fit(features[:40], features[40:])
    assert reference is not None
    tracker = NoveltyTracker(reference, 0)
    tracker.restore([(0, 0, 2 * reference.farthest)], SIDE)
    tracker.write(folder, "harbour", image)
    with rasterio.open(
        folder / "harbour_features.tif", "w", driver="GTiff", count=3, height=6, width=6,
        dtype="float32", nodata=float("nan"), crs="EPSG:32633",
        transform=from_origin(500_000, 5_000_000, 160, 160),
    ) as file:  # fmt: skip
        file.write(np.ones((3, 6, 6), np.float32))

    scene = open_content([folder], tmp_path).scene("harbour")
    layers = {layer.title: layer for layer in scene.layers}
    assert scene.layers[0].title == "image" and scene.grid.shape == (SIDE, SIDE)
    assert len(layers) == len(scene.layers)  # one image
    added = [layers[name] for name in ("features", "novelty: percentile", "novelty: distance")]
    assert not any(layer.visible for layer in added)
    (lon,), (lat,) = scene.grid.lonlat(np.array([50.5]), np.array([50.5]))
    described = [layer.describe(scene.grid, lon, lat) for layer in added]  # type: ignore[union-attr]
    assert described[1:] == [[("percentile", "100\u00a0%")], [("distance", "2")]]
    assert len(described[0]) == 3

    (folder / "harbour.qgs").unlink()
    assert open_content([folder], tmp_path).names == ["harbour", "harbour_features"]


def test_the_best_of_many_shapes_are_shown() -> None:
    count = MAX_FEATURES + 10
    scores = np.arange(count) / count
    shapes = shapely.points(np.zeros(count), np.zeros(count))
    shown = collection(np.asarray(shapes), {"score": scores})
    assert len(shown["features"]) == MAX_FEATURES
    assert min(s["properties"]["score"] for s in shown["features"]) == pytest.approx(
        10 / count, abs=1e-4
    )
    assert shown["note"] == "20,000 of 20,010 are shown, those with the highest scores"


def test_folders_without_maps_are_refused(tmp_path: Path) -> None:
    with pytest.raises(GeotuneError, match="has no maps") as error:
        open_content([tmp_path], tmp_path)
    assert error.value.code == "view-empty"
    with pytest.raises(GeotuneError, match="found nothing, expected a folder"):
        open_content([tmp_path / "gone"], tmp_path)
    (tmp_path / "a.tif").write_bytes(b"no raster")
    content = open_content([tmp_path], tmp_path)
    with pytest.raises(GeotuneError, match=r"a\.tif"):
        content.scene("a")
