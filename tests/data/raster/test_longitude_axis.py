"""Rasters across and beyond the 180th meridian, in degrees and in cylindrical projections."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from pyproj import Transformer
from rasterio.crs import CRS
from rasterio.transform import Affine, from_origin
from rasterio.warp import Resampling, reproject
from rasterio.warp import transform as transform_points

from geotune.config.data_options import QualityOptions
from geotune.data.labels.open_labels import open_labels
from geotune.data.labels.regression_labels import open_regression_labels
from geotune.data.raster.longitude_axis import centre, longitude_axis
from geotune.data.raster.open_raster import ByModality, open_raster
from geotune.data.raster.windows import Window
from geotune.data.scenes.quality import open_quality

Write = Callable[..., Path]
CLASSES = ["water", "land", "road"]
SHAPE = (12, 40)
WHOLE = Window(0, 0, *SHAPE)
RNG = np.random.default_rng(0)
IMAGE = RNG.integers(1, 255, SHAPE).astype("uint8")
VALUES = RNG.integers(0, 3, SHAPE).astype("uint8")

WORLDS: dict[str, float] = {
    "EPSG:4326": 360,
    "EPSG:3857": 2 * np.pi * 6378137,
    "EPSG:3395": 2 * np.pi * 6378137,
    "EPSG:4087": 2 * np.pi * 6378137,
    "EPSG:6933": 34735060.890322745,
    "+proj=merc +lon_0=150 +x_0=1000 +units=us-ft": 2 * np.pi * 6378137 * 3937 / 1200,
}
"""Width of the world in the units of each CRS."""


def natural_east(crs: str) -> float:
    """The greatest x that transformations into the CRS yield."""
    return WORLDS[crs] / 2 + (1000 * 3937 / 1200 if "x_0" in crs else 0)


def grid_at(crs: str, turns: float = 0) -> Affine:
    """A grid of 1/36,000 of the world whose column 15 is at the seam of the CRS."""
    side = WORLDS[crs] / 36_000
    return from_origin(natural_east(crs) - 15 * side + turns * WORLDS[crs], 3 * side, side, side)


@pytest.mark.parametrize("crs", WORLDS)
def test_the_width_of_the_world(crs: str) -> None:
    axis = longitude_axis(CRS.from_user_input(crs))
    assert axis is not None
    assert axis.width == pytest.approx(WORLDS[crs], rel=1e-12)
    assert axis.centre + axis.width / 2 == pytest.approx(natural_east(crs))
    assert axis.longitude == pytest.approx(150 if "lon_0" in crs else 0)


@pytest.mark.parametrize(
    "crs",
    [
        "EPSG:32633",
        "EPSG:3031",
        "ESRI:54009",
        "EPSG:2154",
        "EPSG:4978",
        'LOCAL_CS["x",UNIT["m",1]]',
        "+proj=ob_tran +o_proj=longlat +o_lon_p=0 +o_lat_p=30 +lon_0=10",
    ],
)
def test_other_crss_have_no_longitude_axis(crs: str) -> None:
    assert longitude_axis(CRS.from_user_input(crs)) is None


@pytest.mark.parametrize("crs", [*WORLDS, "EPSG:4267", "EPSG:4979", "EPSG:4326+5773"])
@pytest.mark.parametrize("other", ["EPSG:32701", "EPSG:3832", "EPSG:4269"])
@pytest.mark.parametrize("turns", [-1, 0, 1])
def test_transformations_lead_to_a_raster_across_the_seam(crs: str, other: str, turns: int) -> None:
    """Whatever was transformed before in this process, also with the shift of another datum."""
    own = CRS.from_user_input(crs)
    world = WORLDS.get(crs, 360)
    centre_x = natural_east(crs) - world / 2 if crs in WORLDS else 0
    side = world / 400
    transform = from_origin(centre_x + (0.5 + turns) * world - 200 * side, 0, side, side)
    lon, lat = np.array([-170.3, -179.2, 177.1, 179]), np.array([-20.0, 41.2, 47.1, 30])
    x, y = transform_points("EPSG:4326", other, lon, lat)
    before = transform_points(other, own, x, y)
    centred, moved = centre(own, transform, (100, 400))
    found_x, found_y = transform_points(other, centred, x, y)
    columns, _ = ~moved @ (np.array(found_x), np.array(found_y))
    expected = (np.array(before[0]) - transform.c) / side % 400  # the raster is the whole world
    np.testing.assert_allclose(columns, expected, atol=1e-8)
    np.testing.assert_allclose(found_y, before[1], rtol=1e-9, atol=1e-6)
    natural = from_origin(centre_x, 0, side, side)
    assert centre(own, natural, (100, 100)) == (own, natural)


@pytest.mark.parametrize("crs", WORLDS)
@pytest.mark.parametrize("turns", [-1, 0, 1])
@pytest.mark.parametrize("of_labels", [-1, 0, 1])
def test_labels_whole_turns_away(write_raster: Write, crs: str, turns: int, of_labels: int) -> None:
    scene = open_raster(
        write_raster("s.tif", IMAGE, crs=crs, transform=grid_at(crs, turns)), bands=["a"]
    )
    same = grid_at(crs, of_labels)
    labels = open_labels(
        write_raster("a.tif", VALUES, crs=crs, transform=same), scene, classes=CLASSES
    )
    assert (labels.read(WHOLE).mask == VALUES).all() and labels.notes == ()
    # another grid: a third of the pixel, and 2 pixels further to the east
    finer = same @ Affine.translation(2, 0) @ Affine.scale(1 / 3)
    fine = np.kron(VALUES, np.ones((3, 3), dtype="uint8"))
    path = write_raster("b.tif", fine, crs=crs, transform=finer)
    labels = open_labels(path, scene, classes=CLASSES)
    expected = np.full(SHAPE, 255)
    expected[:, 2:] = VALUES[:, :-2]
    assert labels.overlaps and (labels.read(WHOLE).mask == expected).all()
    numbers = open_regression_labels(path, scene, quantity="height").read(WHOLE).values
    reference = np.full(SHAPE, np.nan, dtype="float32")
    reproject(
        fine.astype("float32"),
        reference,
        src_transform=Affine.translation((turns - of_labels) * WORLDS[crs], 0) @ finer,
        src_crs=crs,
        dst_transform=grid_at(crs, turns),
        dst_crs=crs,
        dst_nodata=np.nan,
        resampling=Resampling.bilinear,
    )
    np.testing.assert_allclose(numbers, reference, atol=0.02)
    options = QualityOptions(pattern="", values=[2])
    masked = open_quality(path, scene, options).masked(WHOLE)
    assert (masked == (expected == 2)).all()


@pytest.mark.parametrize("crs", WORLDS)
@pytest.mark.parametrize("turns", [-1, 0])
@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("mask", [False, True])
def test_labels_around_the_globe_meet_a_scene_twice(
    write_raster: Write, crs: str, turns: int, flipped: bool, mask: bool
) -> None:
    """Columns of the labels are those of the scene, ten times as wide."""
    side = WORLDS[crs] / 3600
    image = np.repeat(IMAGE[:, :8], 5, axis=1)
    transform = from_origin(
        natural_east(crs) - 15 * side / 10 + turns * WORLDS[crs], side, side / 10, side / 10
    )
    scene = open_raster(write_raster("s.tif", image, crs=crs, transform=transform))
    world = RNG.integers(0, 3, (4, 3600)).astype("uint8")
    west = from_origin(natural_east(crs) - WORLDS[crs], 2 * side, side, side)
    if flipped:
        west = west @ Affine(-1, 0, 3600, 0, 1, 0)
    stored = world[:, ::-1] if flipped else world
    path = write_raster("l.tif", stored, crs=crs, transform=west)
    if mask:
        with rasterio.open(path, "r+") as file:
            file.write_mask(stored != 0)
    both = np.concatenate([world[:, -2:], world[:, :3]], axis=1)  # from 20 columns before the seam
    expected = np.kron(both, np.ones((10, 10)))[10:22, 5:45]
    expected = np.where(mask & (expected == 0), 255, expected)
    labels = open_labels(path, scene, classes=CLASSES)
    assert labels.overlaps
    assert (labels.read(WHOLE).mask == expected).all()


@pytest.mark.parametrize("crs", WORLDS)
@pytest.mark.parametrize("other", [*WORLDS, "EPSG:32701", "EPSG:4269"])
@pytest.mark.parametrize("turns", [-1, 0])
def test_labels_in_another_crs(write_raster: Write, crs: str, other: str, turns: int) -> None:
    """The scene lies across its seam, the labels in one piece around it in another CRS."""
    if crs == other or "lon_0" in crs + other:
        return
    scene = open_raster(write_raster("s.tif", IMAGE, crs=crs, transform=grid_at(crs, turns)))
    cols, rows = np.meshgrid(np.arange(SHAPE[1]) + 0.5, np.arange(SHAPE[0]) + 0.5)
    xs, ys = grid_at(crs) @ (cols, rows)
    to_other = Transformer.from_crs(crs, other, always_xy=True)
    found_x, found_y = to_other.transform(
        np.where(xs > natural_east(crs), xs - WORLDS[crs], xs), ys
    )
    if other in WORLDS or other == "EPSG:4269":
        world = WORLDS.get(other, 360.0)
        found_x = np.where(found_x < 0, found_x + world, found_x)
    side = (found_x.max() - found_x.min()) / 30
    transform = from_origin(found_x.min() - side, found_y.max() + side, side, side)
    height = int(np.ptp(found_y) / side) + 3
    values = np.kron(RNG.integers(0, 3, (height // 4 + 1, 8)), np.ones((4, 4))).astype("uint8")
    columns, lines = (np.floor(v).astype(int) for v in ~transform @ (found_x, found_y))
    labels = open_labels(
        write_raster("l.tif", values, crs=other, transform=transform), scene, classes=CLASSES
    )
    assert labels.overlaps
    found = labels.read(WHOLE).mask
    # GDAL approximates positions to an eighth of a pixel
    assert (found == values[lines, columns]).mean() > 0.9


@pytest.mark.parametrize("crs", WORLDS)
@pytest.mark.parametrize("turns", [-1, 0, 1])
def test_images_are_resampled_across_the_seam(write_raster: Write, crs: str, turns: int) -> None:
    """In degrees to a UTM zone, else in the same CRS; the second modality is a turn away."""
    rows, cols = np.mgrid[: SHAPE[0], : SHAPE[1]] + 0.5
    values = (3 * cols + rows).astype("float32")
    one = write_raster("a.tif", values, crs=crs, transform=grid_at(crs, turns))
    two = write_raster("b.tif", values, crs=crs, transform=grid_at(crs, turns - 1))
    files = ByModality({"A": one, "B": two})
    source = open_raster(files, bands={"A": ["a"], "B": ["b"]}, resolution=800)
    assert source.crs is not None and source.crs.is_projected
    image = source.read(Window(0, 0, *source.shape))
    rows, cols = np.mgrid[: source.shape[0], : source.shape[1]] + 0.5
    xs, ys = source.transform @ (cols, rows)
    xs, ys = Transformer.from_crs(source.crs.to_wkt(), crs, always_xy=True).transform(xs, ys)
    xs = (xs - natural_east(crs) + WORLDS[crs] / 2) % WORLDS[crs]  # half the world at the seam
    start = Affine.translation(WORLDS[crs] / 2 - natural_east(crs), 0) @ grid_at(crs)
    cols, rows = ~start @ (xs, ys)
    inner = (cols > 1) & (cols < SHAPE[1] - 1) & (rows > 1) & (rows < SHAPE[0] - 1)
    assert inner.mean() > 0.7
    for layer in image:
        np.testing.assert_allclose(layer[inner], (3 * cols + rows)[inner], atol=0.2)
