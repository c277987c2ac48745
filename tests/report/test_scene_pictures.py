"""Pictures of scenes with their labels on the page of `geotune check`."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio.transform import from_origin

from geotune.data.annotations.object_labels import ObjectLabels
from geotune.data.checks.scan import scan_scene
from geotune.data.labels.class_mapping import ClassMapping
from geotune.data.labels.raster_labels import open_raster_labels
from geotune.data.raster.open_raster import open_raster
from geotune.data.raster.windows import Window
from geotune.data.scenes.scene import Scene
from geotune.report.scene_pictures import picture_scenes
from geotune.report.scene_table import scene_table

RED = (213, 94, 0)  # the palette's colour of ships
HEIGHT, WIDTH = 700, 1001


def write(path: Path, values: NDArray[Any], **options: Any) -> Path:
    count, height, width = values.shape
    profile = {"count": count, "height": height, "width": width, "dtype": values.dtype, **options}
    with rasterio.open(path, "w", transform=from_origin(0, 1e6, 10, 10), **profile) as file:
        file.write(values)
    return path


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A dark image with a border of nodata, larger than a picture."""
    values = np.full((3, HEIGHT, WIDTH), 20, dtype=np.uint16)
    values[:, :, 500:] = 60
    values[:, :50] = 0
    return write(tmp_path / "a.tif", values, crs="EPSG:32633", nodata=0)


def decode(address: str) -> NDArray[np.int64]:
    kind, _, data = address.partition(",")
    assert kind == "data:image/jpeg;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))).astype(np.int64)


def is_red(picture: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Where a picture has the colour of ships, but for the compression of a single pixel."""
    return np.asarray(np.abs(picture - RED).max(axis=2) < 105)


def test_overview_has_every_nth_pixel_without_nodata(image: Path) -> None:
    source = open_raster(image)
    overview = source.read_overview(4)
    assert overview.shape == (3, 175, 251)
    assert np.isnan(overview[:, :12]).all() and not np.isnan(overview[:, 13:]).any()
    assert (overview[0, 13:, :124] == 20).all() and (overview[0, 13:, 127:] == 60).all()
    part = source.crop(Window(100, 600, 80, 40)).read_overview(8)
    assert part.shape == (3, 10, 5) and (part == 60).all()


def test_a_ship_of_three_pixels_is_visible_in_scene_and_detail(image: Path, tmp_path: Path) -> None:
    mask = np.zeros((1, HEIGHT, WIDTH), dtype=np.uint8)
    mask[0, 400:403, 800:803] = 1
    label = write(tmp_path / "mask.tif", mask, crs="EPSG:32633")
    raster = open_raster(image)
    labels = open_raster_labels(label, raster, ClassMapping.from_spec(["background", "ship"]))
    scene = Scene("a", raster, labels, group="a")
    scan = scan_scene(scene, 64)
    [shown] = picture_scenes([scene], [scan], points=False, budget=10**7)
    titles, pictures = zip(*((t, decode(p)) for t, p in shown.pictures), strict=True)
    assert titles == (
        "image", "labels", "detail of 160x160 pixels: image", "detail of 160x160 pixels: labels"
    )  # fmt: skip
    assert shown.caption.replace("\xa0", " ") == "background 93 %, ship <0.01 %"
    whole, labelled, detail, labelled_detail = pictures
    assert whole.shape == (175, 251, 3) and not is_red(whole).any() and not is_red(detail).any()
    rows, cols = np.nonzero(is_red(labelled))
    assert len(rows) and abs(rows.mean() - 100.3) < 1 and abs(cols.mean() - 200.3) < 1
    assert 5 <= is_red(labelled_detail).sum() <= 16
    # without a budget for whole scenes, only the detail is read
    [small] = picture_scenes([scene], [scan], points=False, budget=1000)
    assert [title for title, _ in small.pictures] == list(titles[2:])


@pytest.mark.parametrize("points", [False, True])
def test_boxes_are_drawn_at_their_place(image: Path, points: bool) -> None:
    raster = open_raster(image)
    labels = ObjectLabels(
        path=image,
        classes=("ship",),
        shape=raster.shape,
        boxes=np.array([[400.0, 200, 480, 240]]),
        indices=np.zeros(1, dtype=np.int64),
        difficult=np.zeros(1, dtype=np.bool_),
        min_visibility=0.5,
        overlaps=True,
    )
    scene = Scene("a", raster, labels, group="a")
    scan = scan_scene(scene, 64)
    [shown] = picture_scenes([scene], [scan], points=points, budget=10**7)
    rows, cols = np.nonzero(is_red(decode(shown.pictures[1][1])))
    ends = (cols.min(), rows.min(), cols.max(), rows.max())
    wanted = (106, 51, 114, 59) if points else (100, 50, 120, 60)
    assert np.abs(np.subtract(ends, wanted)).max() <= 2
    assert shown.caption == "ship 1"
    table = scene_table([("train", scene, scan)])
    assert table.columns == [
        "scene",
        "split",
        "height x width",
        "bands",
        "CRS",
        "pixel size",
        "objects",
    ]
    assert table.rows == [["a", "train", "700 x 1001", "3", "EPSG:32633", "10 m", "1"]]
