"""Label rasters and images on grids of any orientation, with and without georeference."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rasterio.transform import Affine, from_origin
from rasterio.warp import Resampling, reproject

from geotune.data.labels.open_labels import class_label_reader, open_labels
from geotune.data.labels.regression_labels import open_regression_labels
from geotune.data.raster.open_raster import open_raster
from geotune.data.raster.windows import Window
from geotune.data.scenes.chips import open_chips
from helpers.errors import raises

NORTH_UP = from_origin(500_000, 5_000_000, 10, 10)
CRS = "EPSG:32633"
SHAPE = (16, 20)
CLASSES = ["water", "land", "road"]
Write = Callable[..., Path]

WHOLE = Window(0, 0, *SHAPE)
VALUES = np.random.default_rng(0).integers(0, 3, SHAPE).astype("uint8")
IMAGE = np.random.default_rng(1).integers(0, 255, SHAPE).astype("uint8")
ORIENTED: dict[str, tuple[Callable[[Any], Any], Affine]] = {
    "south-up": (np.flipud, Affine(1, 0, 0, 0, -1, SHAPE[0])),
    "east-left": (np.fliplr, Affine(-1, 0, SHAPE[1], 0, 1, 0)),
    "upside down": (lambda a: a[::-1, ::-1], Affine(-1, 0, SHAPE[1], 0, -1, SHAPE[0])),
    "transposed": (np.transpose, Affine(0, 1, 0, 1, 0, 0)),
    "turned": (np.rot90, Affine(0, -1, SHAPE[1], 1, 0, 0)),
}
"""How pixels are stored, and the transform from them to those of the north-up raster."""

GRIDS = {
    "north-up": NORTH_UP,
    "south-up": Affine(10, 0, 500_000, 0, 10, 4_999_840),
    "east-left": Affine(-10, 0, 500_200, 0, -10, 5_000_000),
    "rotated": NORTH_UP @ Affine.rotation(30),
    "sheared": NORTH_UP @ Affine.shear(20, 5),
}


@pytest.mark.parametrize("orientation", ORIENTED)
@pytest.mark.parametrize("crs", [CRS, None])
@pytest.mark.parametrize("by_pixel", [False, True])
def test_labels_stored_in_another_orientation(
    write_raster: Write, orientation: str, crs: str | None, by_pixel: bool
) -> None:
    """Also of chips, and with a world file only."""
    change, to_north_up = ORIENTED[orientation]
    options: dict[str, Any] = {"crs": CRS} if crs else {"crs": "", "transform": NORTH_UP}
    scene = open_raster(write_raster("s.tif", IMAGE, **options))
    assert (scene.crs is None) == (crs is None)
    path = write_raster("l.tif", change(VALUES), **{**options, "transform": NORTH_UP @ to_north_up})
    labels = open_labels(path, scene, classes=CLASSES, by_pixel=by_pixel)
    assert (labels.read(WHOLE).mask == VALUES).all()
    assert labels.notes == (f"{path}: has another grid than its image; reprojected to it",)
    if orientation not in ("transposed", "turned"):  # where GDAL interpolates
        numbers = open_regression_labels(path, scene, quantity="height", by_pixel=by_pixel)
        np.testing.assert_allclose(numbers.read(WHOLE).values, VALUES, atol=1e-5)


@pytest.mark.parametrize("of_image", GRIDS)
@pytest.mark.parametrize("of_labels", GRIDS)
def test_labels_on_a_grid_of_any_orientation(
    write_raster: Write, of_image: str, of_labels: str
) -> None:
    scene = open_raster(write_raster("s.tif", IMAGE, transform=GRIDS[of_image]))
    source = np.kron(VALUES, np.ones((3, 3), dtype="uint8"))  # larger than the scene
    transform = Affine.translation(-80, 70) @ GRIDS[of_labels]
    path = write_raster("l.tif", source, transform=transform)
    expected = np.full(SHAPE, 255, dtype="uint8")
    reproject(
        source,
        expected,
        src_transform=transform,
        src_crs=CRS,
        dst_transform=GRIDS[of_image],
        dst_crs=CRS,
        src_nodata=255,
        dst_nodata=255,
        resampling=Resampling.nearest,
    )
    labels = open_labels(path, scene, classes=CLASSES)
    found = np.full(SHAPE, 255, dtype="uint8")
    for row in range(0, 16, 5):  # windows, as training reads them
        window = Window(row, 0, 5, 20)
        rows = found[row : row + 5]
        rows[:] = labels.read(window).mask[: len(rows)]
    # GDAL approximates positions to an eighth of a pixel when it reads windows
    assert (found == expected).mean() > 0.98
    if of_image == of_labels:
        assert (found == expected).all()


@pytest.mark.parametrize("orientation", ORIENTED)
def test_chip_masks_stored_in_another_orientation(
    write_raster: Write, tmp_path: Path, orientation: str
) -> None:
    from geotune.config.data_options import ChipsOptions
    from geotune.config.task_options import SegmentOptions

    change, to_north_up = ORIENTED[orientation]
    write_raster("images/a.tif", IMAGE)
    write_raster("masks/a.tif", change(VALUES), transform=NORTH_UP @ to_north_up)
    folders = {"images": tmp_path / "images", "masks": tmp_path / "masks"}
    data = ChipsOptions.model_construct(class_values=None, ignore_values=[255])
    read = class_label_reader(data, SegmentOptions.model_construct(classes=CLASSES))
    [chip] = open_chips(read, **folders)
    image, target = chip.read(WHOLE)
    assert (target.mask == VALUES).all() and (image[0] == IMAGE).all()  # type: ignore[union-attr]


def test_chip_masks_with_another_georeference_are_noted(write_raster: Write) -> None:
    """As tools that cut chips leave behind: the pixels match, the location does not."""
    scene = open_raster(write_raster("s.tif", IMAGE))
    path = write_raster("l.tif", VALUES, transform=from_origin(499_000, 5_000_000, 10, 10))
    labels = open_labels(path, scene, classes=CLASSES, by_pixel=True)
    assert (labels.read(WHOLE).mask == VALUES).all()
    assert labels.notes == (
        f"{path}: has another georeference than its image; matched by row and column",
    )
    plain = write_raster("p.tif", VALUES, crs=None)
    assert open_labels(plain, scene, classes=CLASSES, by_pixel=True).notes == ()


def test_labels_without_crs_are_in_that_of_the_image(write_raster: Write) -> None:
    scene = open_raster(write_raster("s.tif", IMAGE))
    same = write_raster("a.tif", VALUES, crs="", transform=NORTH_UP)
    labels = open_labels(same, scene, classes=CLASSES)
    assert (labels.read(WHOLE).mask == VALUES).all() and labels.notes == ()
    shifted = write_raster("b.tif", VALUES, crs="", transform=NORTH_UP @ Affine.translation(-3, 2))
    labels = open_labels(shifted, scene, classes=CLASSES)
    expected = np.full(SHAPE, 255)
    expected[2:, :-3] = VALUES[:-2, 3:]
    assert (labels.read(WHOLE).mask == expected).all()
    assert "has no CRS; taken to be in that of its image" in labels.notes[0]
    degrees = write_raster("c.tif", VALUES, crs="", transform=from_origin(15, 45, 1e-4, 1e-4))
    with raises("crs-missing", file=degrees, mentions=["no CRS"]):
        open_labels(degrees, scene, classes=CLASSES)


def test_labels_or_image_without_georeference_are_matched_by_pixel(write_raster: Write) -> None:
    located, plain = write_raster("s.tif", IMAGE), write_raster("p.tif", IMAGE, crs=None)
    path = write_raster("l.tif", VALUES, crs=None)
    labels = open_labels(path, open_raster(located), classes=CLASSES)
    assert (labels.read(WHOLE).mask == VALUES).all()
    assert labels.notes == (
        f"{path}: has no georeference, unlike its image; matched by row and column",
    )
    assert open_labels(path, open_raster(plain), classes=CLASSES).notes == ()
    world = write_raster("w.tif", VALUES, crs="", transform=NORTH_UP)
    labels = open_labels(world, open_raster(plain), classes=CLASSES)
    assert (labels.read(WHOLE).mask == VALUES).all()
    assert "has a georeference, unlike its image" in labels.notes[0]


@pytest.mark.parametrize("grid", GRIDS)
def test_images_of_any_orientation_are_resampled(write_raster: Write, grid: str) -> None:
    rows, cols = np.mgrid[:40, :60]
    transform = GRIDS[grid]
    xs, ys = transform @ (cols + 0.5, rows + 0.5)
    values = np.stack([xs - 500_000, ys - 5_000_000]).astype("float32")
    source = open_raster(write_raster("a.tif", values, transform=transform), resolution=20)
    assert source.gsd_m == pytest.approx(20, rel=0.02)
    image = source.read(Window(0, 0, *source.shape))
    rows, cols = np.mgrid[: source.shape[0], : source.shape[1]]
    expected = np.stack(source.transform @ (cols + 0.5, rows + 0.5))
    inner = (slice(None), slice(2, -2), slice(2, -2))
    found = image[inner] + np.array([500_000, 5_000_000])[:, None, None]
    np.testing.assert_allclose(found, expected[inner], atol=3)


def test_labels_in_a_local_crs(write_raster: Write) -> None:
    local = 'LOCAL_CS["site",UNIT["metre",1]]'
    scene = open_raster(write_raster("s.tif", IMAGE, crs=local))
    shifted = NORTH_UP @ Affine.translation(2, 0)
    path = write_raster("l.tif", VALUES, crs=local, transform=shifted)
    mask = open_labels(path, scene, classes=CLASSES).read(WHOLE).mask
    assert (mask[:, 2:] == VALUES[:, :-2]).all() and (mask[:, :2] == 255).all()


@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:4326"])
def test_pixels_of_the_file_of_a_resampled_image_need_a_georeference(
    write_raster: Write, crs: str
) -> None:
    """Read by row and column they would lie elsewhere, even if the sizes are equal."""
    side = 10 if crs == "EPSG:32633" else 1e-4
    origin = (500_000, 5_000_000) if crs == "EPSG:32633" else (15, 45)
    transform = from_origin(*origin, side, side)
    image = write_raster("s.tif", IMAGE, crs=crs, transform=transform)
    bare = write_raster("l.tif", VALUES, crs=None, transform=None)
    native = open_raster(image)
    assert (open_labels(bare, native, classes=CLASSES).read(WHOLE).mask == VALUES).all()
    for gsd_m in (20, 9.3):  # in degrees, 9.3 m give about the same number of pixels
        scene = open_raster(image, resolution=gsd_m)
        for by_pixel in (False, True):
            with raises("crs-missing", key="data.resolution", file=bare, mentions="world file"):
                open_labels(bare, scene, classes=CLASSES, by_pixel=by_pixel)
        with raises("crs-missing", key="data.resolution", file=bare):
            open_regression_labels(bare, scene, quantity="height")
