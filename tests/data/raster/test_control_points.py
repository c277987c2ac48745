"""Images with only ground control points or RPCs, warped by `data.resolution`, and their labels."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.features import rasterize
from rasterio.rpc import RPC
from rasterio.transform import Affine, from_origin
from rasterio.vrt import WarpedVRT
from rasterio.warp import Resampling, reproject
from rasterio.warp import transform as transform_points
from shapely.geometry import Point, Polygon

from geotune.config.data_options import QualityOptions
from geotune.data.annotations.annotated_scenes import open_annotated_scenes
from geotune.data.annotations.base import AnnotationOptions
from geotune.data.annotations.vector_file import read_vector
from geotune.data.labels.density_labels import open_density_labels
from geotune.data.labels.open_labels import open_labels
from geotune.data.labels.regression_labels import open_regression_labels
from geotune.data.raster.header import RasterHeader, read_header
from geotune.data.raster.open_raster import open_raster
from geotune.data.raster.source import RasterSource
from geotune.data.raster.windows import Window
from geotune.data.scenes.quality import open_quality
from helpers.errors import raises

Write = Callable[..., Path]
SHAPE = (48, 60)
UTM = "EPSG:32660"  # with its eastern edge at the 180th meridian
STORED = Affine.translation(832_000, 4_000_000) @ Affine.rotation(160) @ Affine.scale(10, -10)
"""From the pixels of the file to UTM: turned, as images of descending orbits are."""

FIELD = Polygon([(8.2, 6.1), (50.7, 9.3), (44.2, 40.9), (12.1, 37.4)])
POINTS = np.array([[10.5, 10.5], [40.5, 20.5], [30.2, 44.1]])


def write_image(write: Write, name: str, values: Any, crs: str, **options: Any) -> Path:
    """A file without transform, with a grid of control points."""
    path = write(name, values, crs=None, **options)
    height, width = SHAPE
    cols, rows = (v.ravel() for v in np.meshgrid(np.linspace(0, width, 4), [0, 20, height]))
    xs, ys = STORED @ (cols, rows)
    if crs != UTM:
        xs, ys = map(np.array, transform_points(UTM, crs, xs, ys))
    points = zip(rows.tolist(), cols.tolist(), list(xs), list(ys), strict=True)
    with rasterio.open(path, "r+") as file:
        file.gcps = [GroundControlPoint(*p) for p in points], CRS.from_user_input(crs)
    return path


def plane() -> Any:
    rows, cols = np.mgrid[: SHAPE[0], : SHAPE[1]] + 0.5
    return (100 + 3 * cols + rows).astype("float32")


def stored_pixels(source: RasterSource) -> tuple[Any, Any, Any]:
    """Columns and rows of the file at the pixels of the scene, and which are well inside."""
    assert source.crs is not None
    rows, cols = np.mgrid[: source.shape[0], : source.shape[1]] + 0.5
    xs, ys = source.transform @ (cols.ravel(), rows.ravel())
    xs, ys = map(np.array, transform_points(source.crs, UTM, xs, ys))
    cols, rows = (v.reshape(source.shape) for v in ~STORED @ (xs, ys))
    inside = (cols > 1) & (cols < SHAPE[1] - 1) & (rows > 1) & (rows < SHAPE[0] - 1)
    assert inside.mean() > 0.3
    return cols, rows, inside


@pytest.mark.parametrize("crs", [UTM, "EPSG:4326", "EPSG:3832", "EPSG:3857"])
@pytest.mark.parametrize("resolution", [10, 25])
def test_images_are_warped_by_their_points(
    write_raster: Write, crs: str, resolution: float
) -> None:
    values = plane()
    values[20:26, 30:36] = -9999
    path = write_image(write_raster, "a.tif", values, crs, nodata=-9999)
    source = open_raster(path, resolution=resolution)
    assert source.gsd_m == pytest.approx(resolution, rel=0.02)
    cols, rows, inside = stored_pixels(source)
    image = source.read(Window(0, 0, *source.shape))[0]
    hidden = np.isnan(image)
    gap = (cols > 26) & (cols < 40) & (rows > 16) & (rows < 30)
    kept = (cols > 4) & (cols < 56) & (rows > 4) & (rows < 44) & ~gap
    np.testing.assert_allclose(image[kept], (100 + 3 * cols + rows)[kept], atol=0.5)
    assert np.nanmin(image) > 90 and hidden[gap].any() and not hidden[inside & ~gap].any()
    outside = (cols < -2) | (cols > SHAPE[1] + 2) | (rows < -2) | (rows > SHAPE[0] + 2)
    assert np.isnan(image[outside]).all()


def test_images_are_warped_as_rasterio_warps_them(write_raster: Write) -> None:
    values = np.random.default_rng(0).integers(1, 255, SHAPE).astype("uint8")
    path = write_image(write_raster, "a.tif", values, UTM)
    source = open_raster(path, resolution=10)
    with rasterio.open(path) as file:
        points, _ = file.gcps
        with WarpedVRT(file, crs=UTM) as vrt:
            assert np.allclose(source.transform, vrt.transform)
            assert np.abs(np.subtract(source.shape, vrt.shape)).max() <= 1
    source = open_raster(path, resolution=5)
    reference = np.full(source.shape, np.nan, dtype="float32")
    reproject(
        values.astype("float32"),
        reference,
        gcps=points,
        src_crs=UTM,
        dst_crs=UTM,
        dst_transform=source.transform,
        dst_nodata=np.nan,
        resampling=Resampling.bilinear,
    )
    image = source.read(Window(0, 0, *source.shape))[0]
    both = ~np.isnan(image) & ~np.isnan(reference)
    assert both.sum() > 0.97 * 4 * SHAPE[0] * SHAPE[1]
    # positions are approximated to an eighth of a pixel
    assert np.abs(image - reference)[both].mean() < 4


@pytest.mark.parametrize("crs", [UTM, "EPSG:4326"])
@pytest.mark.parametrize("of_labels", [UTM, "EPSG:4326", "EPSG:3857"])
def test_labels_in_coordinates(
    write_raster: Write, tmp_path: Path, crs: str, of_labels: str
) -> None:
    path = write_image(write_raster, "a.tif", plane(), crs)
    field = shapely.affinity.affine_transform(FIELD.segmentize(1), STORED.to_shapely())
    frame = geopandas.GeoDataFrame(geometry=[field], crs=UTM)
    frame.to_crs(of_labels).to_file(tmp_path / "l.gpkg")
    native = open_raster(path)
    with raises("crs-missing", file=path, mentions=["data.resolution", "gdalwarp"]):
        open_labels(tmp_path / "l.gpkg", native, classes=["background", "field"])
    source = open_raster(path, resolution=10)
    labels = open_labels(tmp_path / "l.gpkg", source, classes=["background", "field"])
    assert source.crs is not None
    in_scene = frame.to_crs(source.crs).geometry
    expected = rasterize(in_scene, out_shape=source.shape, transform=source.transform)
    mask = labels.read(Window(0, 0, *source.shape)).mask
    assert expected.sum() > 900 and (mask != expected).sum() <= 5
    cols, rows, inside = stored_pixels(source)
    assert (shapely.contains_xy(FIELD, cols, rows) == expected)[inside].mean() > 0.99
    points = geopandas.GeoSeries([Point(*(STORED @ tuple(p))) for p in POINTS], crs=UTM)
    points.to_crs(of_labels).to_file(tmp_path / "p.gpkg")
    found = open_density_labels(tmp_path / "p.gpkg", source, objects="tree").points
    np.testing.assert_allclose(np.sort(to_file(source, found)), np.sort(POINTS), atol=0.1)
    boxes = read_vector(tmp_path / "p.gpkg", source, AnnotationOptions(point_size="2 px"))
    centres = np.array([a.points.mean(axis=0) for a in boxes.annotations])
    np.testing.assert_allclose(to_file(source, centres), POINTS, atol=0.1)


def to_file(source: RasterSource, pixels: Any) -> Any:
    assert source.crs is not None
    xs, ys = source.transform @ tuple(np.asarray(pixels).T)
    xs, ys = map(np.array, transform_points(source.crs, UTM, xs, ys))
    return np.stack(~STORED @ (xs, ys), axis=1)


@pytest.mark.parametrize("crs", [UTM, "EPSG:4326"])
@pytest.mark.parametrize("own", [True, False])
def test_rasters_of_labels(write_raster: Write, crs: str, own: bool) -> None:
    """With control points of their own, or a georeference."""
    source = open_raster(write_image(write_raster, "a.tif", plane(), crs), resolution=10)
    values = np.kron(np.random.default_rng(0).integers(0, 2, (6, 6)), np.ones((8, 10)))
    values = values.astype("uint8")
    if own:
        path = write_image(write_raster, "l.tif", values, crs)
    else:
        path = write_raster("l.tif", values, crs=UTM, transform=STORED)
    labels = open_labels(path, source, classes=["water", "land"])
    cols, rows, inside = stored_pixels(source)
    expected = values[rows.astype(int).clip(0, 47), cols.astype(int).clip(0, 59)]
    mask = labels.read(Window(0, 0, *source.shape)).mask
    assert labels.overlaps and (mask == expected)[inside].mean() > 0.96
    outside = (cols < -1) | (cols > SHAPE[1] + 1) | (rows < -1) | (rows > SHAPE[0] + 1)
    assert (mask[outside] == 255).all()
    masked = open_quality(path, source, QualityOptions(pattern="", values=[1]))
    found = masked.masked(Window(0, 0, *source.shape))
    assert (found == (mask == 1)).all()
    heights = write_image(write_raster, "h.tif", plane(), crs)
    numbers = open_regression_labels(heights, source, quantity="height")
    numbers_found = numbers.read(Window(0, 0, *source.shape)).values
    np.testing.assert_allclose(numbers_found[inside], (100 + 3 * cols + rows)[inside], atol=0.5)
    plain = write_raster("p.tif", values, crs=None)
    for by_pixel in (False, True):
        with raises("crs-missing", file=plain, mentions=["ground control points", source.path]):
            open_labels(plain, source, classes=["water", "land"], by_pixel=by_pixel)


def test_rasters_of_labels_for_an_image_that_is_not_warped(write_raster: Write) -> None:
    path = write_image(write_raster, "a.tif", plane(), UTM)
    located = write_raster("l.tif", np.ones(SHAPE, dtype="uint8"), crs=UTM, transform=STORED)
    with raises("crs-missing", file=path, mentions=["data.resolution"]):
        open_labels(located, open_raster(path), classes=["water", "land"])
    for name in ("p.tif", "q.tif"):
        values = np.ones(SHAPE, dtype="uint8")
        same = write_raster(name, values, crs=None)
        if name == "q.tif":
            same = write_image(write_raster, name, values, UTM)
        labels = open_labels(same, open_raster(path), classes=["water", "land"])
        assert (labels.read(Window(0, 0, *SHAPE)).mask == 1).all()


@pytest.mark.parametrize("stored", ["points", "utm", "degrees"])
def test_labels_in_pixels_of_an_image_that_is_resampled(
    write_raster: Write, tmp_path: Path, stored: str
) -> None:
    if stored == "points":
        path = write_image(write_raster, "a.tif", plane(), UTM)
        transform, crs = STORED, UTM
    else:
        crs = UTM if stored == "utm" else "EPSG:4326"
        transform = STORED if stored == "utm" else from_origin(179.997, 36, 1e-4, 8e-5)
        path = write_raster("a.tif", plane(), crs=crs, transform=transform)
    source = open_raster(path, resolution=20)
    assert source.crs is not None
    xs, ys = transform @ tuple(POINTS.T)
    xs, ys = map(np.array, transform_points(crs, source.crs, xs, ys))
    expected = np.stack(~source.transform @ (xs, ys), axis=1)
    lines = "\n".join(f"{x},{y}" for x, y in POINTS)
    (tmp_path / "a.csv").write_text(f"x,y\n{lines}\n")
    found = open_density_labels(tmp_path / "a.csv", source, objects="tree").points
    np.testing.assert_allclose(found, expected, atol=0.02)
    options = AnnotationOptions(point_size="2 px")
    voc = "".join(
        "<object><name>tree</name><bndbox>"
        f"<xmin>{x - 1}</xmin><ymin>{y - 1}</ymin><xmax>{x + 1}</xmax><ymax>{y + 1}</ymax>"
        "</bndbox></object>"
        for x, y in POINTS
    )
    size = f"<size><width>{SHAPE[1]}</width><height>{SHAPE[0]}</height></size>"
    (tmp_path / "a.xml").write_text(f"<annotation>{size}{voc}</annotation>")
    yolo = "\n".join(
        f"0 {x / SHAPE[1]} {y / SHAPE[0]} {2 / SHAPE[1]} {2 / SHAPE[0]}" for x, y in POINTS
    )
    (tmp_path / "a.txt").write_text(yolo)
    for suffix, name in (("csv", "points"), ("xml", "voc"), ("txt", "yolo")):
        [scene] = open_annotated_scenes(
            scenes=str(path),
            labels=f"{tmp_path}/{{stem}}.{suffix}",
            classes=["tree"],
            options=options,
            format=name,
            resolution=20,
        )
        boxes = scene.labels.boxes  # type: ignore[attr-defined]
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        np.testing.assert_allclose(centres, expected, atol=0.6 if name == "voc" else 0.05)


def test_images_that_cannot_be_warped(write_raster: Write) -> None:
    path = write_raster("a.tif", plane(), crs=None)
    with rasterio.open(path, "r+") as file:
        file.gcps = [GroundControlPoint(0, 0, 5e5, 5e6)] * 2, CRS.from_epsg(32633)
    with raises("crs-missing", key="data.resolution", file=path, mentions=["2", "gdalwarp"]):
        open_raster(path, resolution=10)
    path = write_raster("b.tif", plane(), crs=None)
    ones = [0.0] * 20
    rpc = RPC(0, 1, 45, 1, ones, ones, 0, 1, 15, 1, ones, ones, 0, 1)
    with rasterio.open(path, "r+") as file:
        file.rpcs = rpc
    with raises("crs-missing", key="data.resolution", file=path, mentions=["gdalwarp -rpc"]):
        open_raster(path, resolution=10)


def test_headers_keep_control_points(write_raster: Write) -> None:
    header = read_header(write_image(write_raster, "a.tif", plane(), UTM))
    assert header.control_points is not None and len(header.control_points.points) == 12
    values = header.to_json()
    assert RasterHeader.from_json(json.loads(json.dumps(values))) == header
    assert replace(header, control_points=None).to_json() != values
