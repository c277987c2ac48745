from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geotune.data.labels.open_labels import open_labels
from geotune.data.scenes.chips import open_chips
from geotune.errors import GeotuneError

ONES = np.ones((1, 6, 6), dtype="uint8")
ZEROS = np.zeros((6, 6), dtype="uint8")
SHIPS = ["background", "ship"]


def test_images_and_masks_are_matched_by_stem(tmp_path: Path, write_raster: Any) -> None:
    for name in ("b", "a"):
        write_raster(f"images/{name}_img.tif", ONES)
        write_raster(f"masks/{name}.tif", ZEROS)
    (tmp_path / "images" / "readme.txt").write_text("not an image")
    chips = open_chips(
        partial(open_labels, classes=SHIPS),
        images=tmp_path / "images",
        masks=tmp_path / "masks",
        image_suffix="_img",
    )
    assert [chip.name for chip in chips] == ["a", "b"]
    assert chips[0].raster.path.name == "a_img.tif" and chips[0].labels.path.name == "a.tif"


def test_masks_may_lie_beside_images(tmp_path: Path, write_raster: Any) -> None:
    write_raster("a.tif", ONES)
    write_raster("a_mask.tif", ZEROS)
    for suffixes in ({"mask_suffix": "_mask"},):
        chips = open_chips(
            partial(open_labels, classes=SHIPS), images=tmp_path, masks=tmp_path, **suffixes
        )
        assert [chip.name for chip in chips] == ["a"]
        assert chips[0].labels.path.name == "a_mask.tif"


def test_chips_without_partner_are_named(tmp_path: Path, write_raster: Any) -> None:
    for name in "ab":
        write_raster(f"images/{name}.tif", ONES)
    for name in "bc":
        write_raster(f"masks/{name}.tif", ZEROS)
    with pytest.raises(
        GeotuneError, match=r"1 image without mask there: a; .*1 mask without image there: c"
    ):
        open_chips(
            partial(open_labels, classes=SHIPS),
            images=tmp_path / "images",
            masks=tmp_path / "masks",
        )


def test_an_image_and_mask_of_different_size_are_named(tmp_path: Path, write_raster: Any) -> None:
    write_raster("images/a.tif", ONES)
    write_raster("masks/a.tif", np.zeros((6, 5), dtype="uint8"))
    with pytest.raises(GeotuneError, match=r"masks/a\.tif: is 6x5 pixels.*images/a\.tif is 6x6"):
        open_chips(
            partial(open_labels, classes=SHIPS),
            images=tmp_path / "images",
            masks=tmp_path / "masks",
        )


def test_folders_that_hold_nothing_are_named(tmp_path: Path) -> None:
    with pytest.raises(GeotuneError, match="images: there is no such folder"):
        open_chips(partial(open_labels, classes=SHIPS), images=tmp_path / "images", masks=tmp_path)
    with pytest.raises(GeotuneError, match="holds no raster"):
        open_chips(partial(open_labels, classes=SHIPS), images=tmp_path, masks=tmp_path)
