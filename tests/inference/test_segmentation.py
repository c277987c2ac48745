"""Segmentation maps of scenes: content, georeference, and cleanup after failures."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyogrio
import pytest
import rasterio
import rasterio.shutil
import torch
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.transform import from_origin
from torch import Tensor

from geotune.data.raster.open_raster import open_raster
from geotune.data.raster.source import RasterSource
from geotune.data.raster.windows import Window
from geotune.inference.geotiff import GeoTiffWriter, atomic_output
from geotune.inference.segmentation import ClassMap, segment_scene
from geotune.inference.sliding_window import WindowOptions
from geotune.utils.colors import palette
from helpers.errors import raises
from helpers.inference_scenes import UTM, position_model, rule_model, write_scene

CLASSES = ["background", "water & ice", "ship"]
BANDS = ["red", "nir"]


def predict(source: RasterSource, out: Path, model: Any = rule_model, **more: Any) -> ClassMap:
    window_options: dict[str, Any] = {"window": 32, "bands": BANDS}
    names = {field.name for field in fields(WindowOptions)}
    window_options |= {name: more.pop(name) for name in names & more.keys()}
    options: dict[str, Any] = {"classes": CLASSES, "name": "port"} | more
    return segment_scene(
        probabilities(model), source, out, WindowOptions(**window_options), **options
    )


def probabilities(model: Any) -> Any:
    """Softmax of a model's logits."""
    return lambda images: model(images).softmax(dim=1)


def blocks(height: int, width: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    """(2, H, W) of values 0.5, 1.5, 2.5 in squares of 7 pixels, with a border of nodata."""
    values = np.random.default_rng(seed).integers(0, 3, (height // 7 + 1, width // 7 + 1)) + 0.5
    image = np.kron(values, np.ones((7, 7)))[:height, :width].astype(np.float32)
    image = np.stack([image, image])
    image[:, :3] = -1
    image[:, :, -2:] = -1
    return image


def test_map_keeps_georeference_and_nodata_and_is_cloud_optimised(tmp_path: Path) -> None:
    image = blocks(700, 600)
    source = write_scene(tmp_path / "port.tif", image)
    result = predict(source, tmp_path / "out", window=128)
    with rasterio.open(result.classes_path) as file:
        assert file.crs == source.crs
        assert file.transform == UTM
        assert (file.dtypes, file.nodata, file.shape) == (("uint8",), 255, (700, 600))
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.overviews(1) == [2]
        actual = file.read(1)
        table = file.colormap(1)
        assert tuple(table[i][:3] for i in range(3)) == palette(CLASSES)
        assert file.tags(1)["class_1"] == "water & ice"
    expected = np.where(image[0] == -1, 255, image[0].astype(int))
    np.testing.assert_array_equal(actual, expected)
    assert list(result.pixels.values()) == [(expected == i).sum() for i in range(3)]
    assert result.nodata_pixels == (expected == 255).sum()
    assert result.notes == ()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "port.qgs", "port_classes.qml", "port_classes.tif", "port_classes.tif.aux.xml",
        "port_polygons.gpkg", "port_polygons.qml",
    ]  # fmt: skip


def test_threshold_gives_pixels_to_a_rare_class(tmp_path: Path) -> None:
    source = write_scene(tmp_path / "port.tif", blocks(60, 50))

    def model(images: Tensor) -> Tensor:
        ship = torch.nan_to_num(images[:, :1]) / 10  # 0.05, 0.15 or 0.25
        return torch.cat([0.6 - ship, 0.4 + 0 * ship, ship], dim=1).log()

    with rasterio.open(predict(source, tmp_path / "usual", model).classes_path) as file:
        usual = file.read(1)
    assert set(np.unique(usual)) == {0, 1, 255}
    result = predict(source, tmp_path / "out", model, thresholds={2: 0.2})
    with rasterio.open(result.classes_path) as file:
        values = file.read(1)
    image = source.read(Window(0, 0, *source.shape))[0]
    np.testing.assert_array_equal(values == 2, image > 2)
    np.testing.assert_array_equal(values[values != 2], usual[values != 2])
    table = geopandas.read_file(result.polygons_path)
    assert table[table["class"] == "ship"]["score"].to_numpy() == pytest.approx(0.25, abs=0.003)


@pytest.mark.parametrize(("dtype", "predictor"), [("uint8", None), ("float32", "3")])
def test_gdal_knows_the_options_of_maps(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, dtype: str, predictor: str | None
) -> None:
    source = write_scene(tmp_path / "port.tif", blocks(40, 40))
    with GeoTiffWriter.for_scene(tmp_path / "map.tif", source, ["a"], dtype=dtype) as file:
        file.write(0, 0, np.ones((1, 40, 40), dtype))
        file.finish("NEAREST")
    with rasterio.open(tmp_path / "map.tif") as written:
        assert written.tags(ns="IMAGE_STRUCTURE").get("PREDICTOR") == predictor
    assert not caplog.records


def test_gdal_reads_class_names(tmp_path: Path) -> None:
    source = write_scene(tmp_path / "port.tif", blocks(40, 40))
    result = predict(source, tmp_path)
    rasterio.shutil.copy(result.classes_path, tmp_path / "port.vrt", driver="VRT")
    names = re.findall("<Category>(.*)</Category>", (tmp_path / "port.vrt").read_text())
    assert names == ["background", "water &amp; ice", "ship"]


def test_polygons_have_the_areas_of_the_map_without_background(tmp_path: Path) -> None:
    image = blocks(300, 200)
    source = write_scene(tmp_path / "port.tif", image)
    result = predict(source, tmp_path)
    assert result.polygons_path is not None
    assert [layer for layer, _ in pyogrio.list_layers(result.polygons_path)] == ["polygons"]
    table = geopandas.read_file(result.polygons_path)
    assert len(table) == result.polygons
    assert table.crs == source.crs
    assert set(table["class"]) == {"water & ice", "ship"}
    for index, name in enumerate(CLASSES[1:], start=1):
        count = (image[0].astype(int) == index).sum()
        own = table[table["class"] == name]
        assert own["pixels"].sum() == count == result.pixels[name]
        assert own["area_m2"].sum() == pytest.approx(count * 100)
        assert own.area.sum() == pytest.approx(count * 100)
    with rasterio.open(result.classes_path) as file:
        values = file.read(1)
    for polygon in table.sample(20, random_state=0).itertuples():
        point = polygon.geometry.representative_point()
        row, col = rasterio.transform.rowcol(UTM, point.x, point.y)
        assert CLASSES[values[row, col]] == polygon[1]


def test_first_class_has_polygons_unless_named_background(tmp_path: Path) -> None:
    source = write_scene(tmp_path / "port.tif", blocks(40, 40))
    result = predict(source, tmp_path, classes=["land", "water", "ship"])
    assert set(geopandas.read_file(result.polygons_path)["class"]) == {"land", "water", "ship"}


def test_probabilities_are_named_and_scaled_and_keep_nodata(
    tmp_path: Path,
) -> None:
    image = blocks(60, 50)
    source = write_scene(tmp_path / "port.tif", image)
    result = predict(source, tmp_path, position_model, probabilities=True, polygons=False)
    assert result.polygons_path is None
    assert result.polygons is None
    with rasterio.open(result.probabilities_path) as file:
        assert file.descriptions == tuple(CLASSES)
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        stored = file.read()
        shares = stored * np.array(file.scales)[:, None, None]
        assert (file.crs, file.transform, file.nodata) == (source.crs, UTM, 255)
    valid = image[0] != -1
    np.testing.assert_array_equal(stored == 255, np.broadcast_to(~valid, stored.shape))
    np.testing.assert_allclose(shares.sum(axis=0)[valid], 1, atol=0.01)
    with rasterio.open(result.classes_path) as file:
        chosen = file.read(1)
    top = np.take_along_axis(shares, np.where(valid, chosen, 0)[None], axis=0)[0]
    assert (top >= shares.max(axis=0) - 0.005)[valid].all()


def test_constant_model_gives_a_constant_map(tmp_path: Path) -> None:
    source = write_scene(tmp_path / "port.tif", np.ones((2, 75, 53), dtype=np.float32))

    def constant(images: Tensor) -> Tensor:
        logits = torch.zeros(len(images), 3, *images.shape[2:])
        logits[:, 2] = 0.1
        return logits

    result = predict(source, tmp_path, constant)
    assert result.pixels == {"background": 0, "water & ice": 0, "ship": 75 * 53}
    assert result.polygons == 1


def test_scene_smaller_than_the_window(tmp_path: Path) -> None:
    image = np.full((2, 5, 9), 2.5, dtype=np.float32)
    source = write_scene(tmp_path / "port.tif", image)
    result = predict(source, tmp_path)
    assert result.windows == 1
    assert result.pixels["ship"] == 45


def test_scene_without_crs_gives_a_map_without_crs_and_a_note(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    source = write_scene(tmp_path / "port.tif", blocks(40, 40), crs=None)
    result = predict(source, tmp_path)
    with rasterio.open(result.classes_path) as file:
        assert file.crs is None
    table = geopandas.read_file(result.polygons_path)
    assert table.crs is None
    assert table.area.sum() == table["pixels"].sum()
    assert table["area_m2"].isna().all()
    assert "no CRS" in result.notes[0]
    assert not [w for w in recwarn if "crs" in str(w.message)]


def test_maps_keep_the_ground_control_points_of_a_scene(tmp_path: Path) -> None:
    points = [
        GroundControlPoint(row, col, 500_000 + 10 * col + row, 5_000_000 - 10 * row, id=str(i))
        for i, (row, col) in enumerate([(0, 0), (0, 40), (40, 0), (40, 40)])
    ]
    path = tmp_path / "port.tif"
    write_scene(path, blocks(40, 40), crs=None)
    with rasterio.open(path, "r+") as file:
        file.gcps = points, CRS.from_epsg(32633)
    result = predict(open_raster(path), tmp_path)
    assert "control points" in result.notes[0]
    with rasterio.open(result.classes_path) as file:
        kept, crs = file.gcps
        assert crs == CRS.from_epsg(32633) and file.crs is None
        assert [(p.row, p.col, p.x, p.y) for p in kept] == [
            (p.row, p.col, p.x, p.y) for p in points
        ]
    expected = [result.pixels[name] for name in result.pixels]
    with rasterio.open(result.classes_path) as file:
        values = file.read(1)
    assert [int((values == i).sum()) for i in range(len(expected))] == expected


def test_scene_in_degrees_has_areas_in_square_metres(tmp_path: Path) -> None:
    image = np.full((2, 20, 20), 1.5, dtype=np.float32)
    source = write_scene(
        tmp_path / "port.tif", image, crs="EPSG:4326", transform=from_origin(0, 60, 0.001, 0.001)
    )
    table = geopandas.read_file(predict(source, tmp_path).polygons_path)
    expected = table.to_crs("EPSG:6933").area.sum()  # an equal-area grid
    assert table["area_m2"].sum() == pytest.approx(expected, rel=1e-4)


def test_scene_without_data_gives_an_empty_map_and_a_note(tmp_path: Path) -> None:
    source = write_scene(tmp_path / "port.tif", np.full((2, 40, 40), -1, dtype=np.float32))
    result = predict(source, tmp_path)
    assert (result.windows, result.polygons, result.nodata_pixels) == (0, 0, 1600)
    assert len(geopandas.read_file(result.polygons_path)) == 0
    assert "no pixel has data" in result.notes[0]


def test_bands_are_selected_by_name(tmp_path: Path) -> None:
    image = np.stack([np.full((16, 16), 0.5), np.full((16, 16), 2.5)]).astype(np.float32)
    source = write_scene(tmp_path / "port.tif", image)
    assert predict(source, tmp_path, bands=["nir", "red"]).pixels["ship"] == 256
    with raises("band-missing", mentions=["swir"]):
        predict(source, tmp_path, bands=["red", "swir"])


@pytest.mark.parametrize("failing_at", ["model", "progress"])
def test_failure_keeps_only_earlier_files(tmp_path: Path, failing_at: str) -> None:
    source = write_scene(tmp_path / "port.tif", blocks(100, 100))
    out = tmp_path / "out"
    before = predict(source, out)
    kept = {path.name: path.read_bytes() for path in out.iterdir()}
    calls = 0

    def failing(*arguments: Any) -> Tensor:
        nonlocal calls
        calls += 1
        if calls > 4:
            raise KeyboardInterrupt
        return position_model(*arguments) if failing_at == "model" else torch.empty(0)

    with pytest.raises(KeyboardInterrupt):
        if failing_at == "model":
            predict(source, out, failing, probabilities=True)
        else:
            predict(source, out, position_model, on_progress=failing)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == kept
    assert before.classes_path.exists()


def test_failure_while_writing_polygons_leaves_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: Any, **__: Any) -> None:
        raise pyogrio.errors.DataSourceError("disk full")

    monkeypatch.setattr(pyogrio.raw, "write", full_disk)
    source = write_scene(tmp_path / "port.tif", blocks(40, 40))
    with raises("output-not-writable", mentions=["disk full"]):
        predict(source, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_second_prediction_replaces_the_first(tmp_path: Path) -> None:
    source = write_scene(tmp_path / "port.tif", blocks(40, 40))
    predict(source, tmp_path)
    second = predict(source, tmp_path, lambda x: -rule_model(x))
    table = geopandas.read_file(second.polygons_path)
    assert table["pixels"].sum() == second.pixels["water & ice"] + second.pixels["ship"]
    third = predict(source, tmp_path, polygons=False)
    (note,) = third.notes
    assert str(second.polygons_path) in note and "earlier prediction" in note


def test_module_is_set_to_evaluation_mode(tmp_path: Path) -> None:
    source = write_scene(tmp_path / "port.tif", np.ones((2, 40, 40), dtype=np.float32))
    model = torch.nn.Sequential(
        torch.nn.Conv2d(2, 3, 1), torch.nn.Dropout(0.9), torch.nn.Softmax(1)
    )
    options = WindowOptions(bands=BANDS, window=32)
    segment_scene(model, source, tmp_path, options, classes=CLASSES, name="port")
    assert not model.training


@pytest.mark.parametrize(
    ("invalid", "code", "message"),
    [
        ({"classes": ["one"]}, "class-count", "classes: found 1"),
        ({"colors": [(0, 0, 0)]}, "class-count", "colors: found 1"),
        ({"name": "a/b"}, "option-invalid", "name: found 'a/b'"),
        ({"window": 0}, "option-invalid", "window: found 0"),
        ({"batch_size": 0}, "option-invalid", "batch_size: found 0"),
        ({"overlap": 1.0}, "option-invalid", "overlap: found 1.0"),
    ],
)
def test_values_out_of_range_are_rejected(
    tmp_path: Path, invalid: dict[str, Any], code: str, message: str
) -> None:
    source = write_scene(tmp_path / "port.tif", np.ones((2, 8, 8), dtype=np.float32))
    with raises(code, mentions=[message]):
        predict(source, tmp_path / "out", **invalid)
    assert not any((tmp_path / "out").glob("*"))


def test_output_folder_that_is_a_file_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    source = write_scene(tmp_path / "port.tif", np.ones((2, 8, 8), dtype=np.float32))
    with raises("output-not-writable", file=tmp_path / "out"):
        predict(source, tmp_path / "out")


def test_atomic_output_moves_all_files_at_the_end(tmp_path: Path) -> None:
    with atomic_output(tmp_path / "new") as folder:
        (folder / "a").write_text("a")
        assert not (tmp_path / "new" / "a").exists()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a"]


def test_real_scene_with_one_file_per_band(shared_data: Path, tmp_path: Path) -> None:
    """The border with 255 in both bands becomes nodata; 255 in a single band is data."""
    names = ["B04", "B08"]
    files = {name: shared_data / "scene" / f"{name}.tif" for name in names}
    source = open_raster(files, nodata=255)

    def by_ratio(images: Tensor) -> Tensor:
        red, infrared = images.nan_to_num().unbind(1)
        return torch.stack([infrared, red, red - 500], dim=1)

    result = predict(
        source, tmp_path, by_ratio, bands=names, window=512, overlap=0.0, batch_size=2,
        polygons=False,
    )  # fmt: skip
    pixels = []
    for path in files.values():
        with rasterio.open(path) as file:
            pixels.append(file.read(1))
    red, infrared = pixels
    with rasterio.open(result.classes_path) as file:
        assert (file.shape, file.crs, file.transform) == (
            source.shape, source.crs, source.transform,
        )  # fmt: skip
        actual = file.read(1)
    border = (red == 255) & (infrared == 255)
    assert 0.3 < border.mean() < 0.33
    np.testing.assert_array_equal(actual == 255, border)
    both = (red != 255) & (infrared != 255)
    np.testing.assert_array_equal(actual[both] == 1, (red > infrared)[both])
