"""Pixels that a quality mask flags are ignored."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rasterio.transform import from_origin

from geotune.config.data_options import QualityOptions
from geotune.data.checks.scan import scan_scene
from geotune.data.labels.open_labels import open_labels
from geotune.data.raster.open_raster import open_raster
from geotune.data.raster.warp import rotated_crop
from geotune.data.raster.windows import Window
from geotune.data.scenes.quality import open_quality, with_quality
from geotune.data.scenes.scene import Scene
from geotune.types import IGNORE
from helpers.errors import raises

CLOUDS = np.zeros((30, 40), dtype="uint16")
CLOUDS[5:15, 10:20] = 8
CLOUDS[20, 30] = 3


@pytest.fixture
def scene(write_raster: Any) -> Scene:
    raster = open_raster(write_raster("a.tif", np.full((2, 30, 40), 50, dtype="uint8")))
    path = write_raster("l.tif", np.ones((30, 40), dtype="uint8"))
    labels = partial(open_labels, classes=["background", "ship"])(path, raster)
    return Scene("a", raster, labels, group="a")


def masked(scene: Scene, path: Path, **rule: Any) -> Scene:
    return replace(
        scene,
        raster=replace(
            scene.raster,
            quality=open_quality(path, scene.raster, QualityOptions(pattern="", **rule)),
        ),
    )


@pytest.mark.parametrize("hide", [False, True])
def test_flagged_pixels_have_no_label_and_optionally_no_data(
    scene: Scene, write_raster: Any, hide: bool
) -> None:
    cloudy = masked(scene, write_raster("q.tif", CLOUDS), values=(3, 8), mask_image=hide)
    image, target = cloudy.read(Window(-2, 0, 34, 42))
    flagged = np.pad(CLOUDS > 0, ((2, 2), (0, 2)))
    beyond = np.pad(np.zeros((30, 40), bool), ((2, 2), (0, 2)), constant_values=True)
    assert ((target.mask == IGNORE) == flagged | beyond).all()
    assert (np.isnan(image[0]) == (beyond | flagged if hide else beyond)).all()
    result = scan_scene(cloudy, 16)
    assert result.pixels == 1200 - 101 and result.class_counts.tolist() == [0, 1200 - 101]
    assert result.counts.tolist() == [1200 - 101 * hide] * 2
    assert (cloudy.read_target().mask == IGNORE).sum() == 101
    _, turned = cloudy.read_crop(rotated_crop(20, 15, 12, angle=0, scale=1))
    assert (turned.mask == target.mask[11:23, 14:26]).all()


def test_any_set_bit_flags_a_pixel(scene: Scene, write_raster: Any) -> None:
    values = np.zeros((30, 40), dtype="uint16")
    values[0, :5] = [1 << 3, 1 << 4, (1 << 3) + (1 << 4), 1 << 15, 1 << 2]
    cloudy = masked(scene, write_raster("q.tif", values), bits=(3, 15))
    assert (cloudy.read(Window(0, 0, 1, 6))[1].mask == IGNORE).tolist() == [
        [True, False, True, True, False, False]
    ]


def test_mask_on_another_grid_is_resampled(scene: Scene, write_raster: Any) -> None:
    coarse = CLOUDS[::5, ::5].copy()
    path = write_raster("q.tif", coarse, transform=from_origin(500_000, 5_000_000, 50, 50))
    cloudy = masked(scene, path, values=(8, 0))
    flags = np.isin(coarse, (8, 0)).repeat(5, 0).repeat(5, 1)
    assert (cloudy.raster.read_block(Window(0, 0, 30, 40)).masked == flags).all()


@pytest.mark.parametrize("side", [5, 10, 50])
def test_any_band_of_a_mask_is_read_on_any_grid(scene: Scene, write_raster: Any, side: int) -> None:
    own = CLOUDS[:: side // 10, :: side // 10] if side > 10 else CLOUDS.repeat(10 // side, 0)
    own = own.repeat(10 // side, 1) if side < 10 else own
    transform = from_origin(500_000, 5_000_000, side, side)
    path = write_raster("q.tif", np.stack([0 * own + 8, own, own]), transform=transform)
    cloudy = masked(scene, path, values=(8,), band=2)
    expected = own.repeat(side // 10, 0).repeat(side // 10, 1) if side > 10 else CLOUDS
    flags = cloudy.raster.read_block(Window(0, 0, 30, 40)).masked
    assert (flags == (expected == 8)).all()


def test_a_mask_that_lies_elsewhere_raises(scene: Scene, write_raster: Any) -> None:
    """It would flag nothing."""
    path = write_raster("q.tif", CLOUDS, transform=from_origin(600_000, 5_000_000, 10, 10))
    with raises("grid-mismatch", key="data.quality.pattern", file=path, mentions="covers no part"):
        masked(scene, path, values=(8,))


def test_unusable_masks_raise(scene: Scene, write_raster: Any, tmp_path: Path) -> None:
    with raises("file-missing", key="data.quality.pattern", file=tmp_path / "a_q.tif"):
        options = QualityOptions(pattern=f"{tmp_path}/{{stem}}_q.tif", values=[1])
        with_quality({"a": scene.raster}, options)
    cases = [
        ({"values": (1,), "band": 2}, CLOUDS, "band-missing", "data.quality.band"),
        ({"values": (1,)}, CLOUDS.astype("float32"), "raster-dtype", "data.quality"),
        ({"bits": (9,)}, CLOUDS.astype("uint8"), "raster-dtype", "data.quality.bits"),
        ({"values": (1,)}, CLOUDS[:20], "grid-mismatch", None),
    ]
    for i, (rule, values, code, key) in enumerate(cases):
        path = write_raster(f"q{i}.tif", values, crs=None)
        with raises(code, key=key, file=path):
            masked(scene, path, **rule)
