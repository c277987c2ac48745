import unicodedata
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from geotune.data.labels.open_labels import open_labels
from geotune.data.raster.windows import Window
from geotune.data.scenes.chips import open_chips, unread_chips
from helpers.errors import raises

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


def test_folders_of_chips_and_files_of_the_system(tmp_path: Path, write_raster: Any) -> None:
    composed, separate = "ré", unicodedata.normalize("NFD", "ré")
    for image, mask in (("t1/a", "t1/a"), ("t2/a", "t2/a"), (f"t2/{composed}", f"t2/{separate}")):
        write_raster(f"images/{image}.tif", ONES)
        write_raster(f"masks/{mask}.tif", ZEROS)
    for junk in ("images/._a.tif", "images/.ipynb_checkpoints/a.tif", "masks/__MACOSX/._a.tif"):
        (tmp_path / junk).parent.mkdir(exist_ok=True)
        (tmp_path / junk).write_bytes(b"junk")
    read = partial(open_labels, classes=SHIPS)
    chips = open_chips(read, images=tmp_path / "images", masks=tmp_path / "masks")
    assert [chip.name for chip in chips] == ["t1/a", "t2/a", f"t2/{composed}"]
    (tmp_path / "images").rename(tmp_path / separate)
    again = open_chips(read, images=tmp_path / composed, masks=tmp_path / "masks")
    assert [chip.name for chip in again] == [chip.name for chip in chips]


def test_chips_that_are_not_read_are_reported(tmp_path: Path, write_raster: Any) -> None:
    for name in ("a", "more/b", "more/c"):
        write_raster(f"images/{name}.tif", ONES)
        write_raster(f"images/masks/{name}.tif", ZEROS)
    images, masks = tmp_path / "images", tmp_path / "images" / "masks"
    read = partial(open_labels, classes=SHIPS)
    assert [chip.name for chip in open_chips(read, images=images, masks=masks)] == ["a"]
    found = unread_chips(images, masks)
    assert [(issue.severity, issue.key) for issue in found] == [
        ("warning", "data.images"),
        ("warning", "data.masks"),
    ]
    for issue, folder in zip(found, (images, masks), strict=True):
        assert "2 rasters" in issue.text and issue.file == folder / "more" / "b.tif"
    assert len(unread_chips(images, images)) == 2
    assert not unread_chips(images / "more", masks / "more")
    assert not unread_chips(images, masks, "_image", "_mask")
    (images / "a.tif").unlink()
    assert [issue.key for issue in unread_chips(images, masks)] == ["data.masks"]


def test_masks_in_the_folder_of_the_images(tmp_path: Path, write_raster: Any) -> None:
    write_raster("a.tif", ONES)
    write_raster("a_mask.tif", ZEROS)
    chips = open_chips(
        partial(open_labels, classes=SHIPS), images=tmp_path, masks=tmp_path, mask_suffix="_mask"
    )
    assert [chip.name for chip in chips] == ["a"]
    assert chips[0].labels.path.name == "a_mask.tif"


def test_images_and_masks_without_counterpart_raise(tmp_path: Path, write_raster: Any) -> None:
    for name in "ab":
        write_raster(f"images/{name}.tif", ONES)
    for name in "bc":
        write_raster(f"masks/{name}.tif", ZEROS)
    with raises("labels-missing", mentions=["no mask for 1 image: a", "no image for 1 mask: c"]):
        open_chips(
            partial(open_labels, classes=SHIPS),
            images=tmp_path / "images",
            masks=tmp_path / "masks",
        )


def test_image_and_mask_of_different_size_raise(tmp_path: Path, write_raster: Any) -> None:
    write_raster("images/a.tif", ONES)
    write_raster("masks/a.tif", np.zeros((6, 5), dtype="uint8"))
    with raises("grid-mismatch", file=tmp_path / "masks/a.tif", mentions=["6x5", "6x6"]):
        open_chips(
            partial(open_labels, classes=SHIPS),
            images=tmp_path / "images",
            masks=tmp_path / "masks",
        )


def test_missing_and_empty_folders_raise(tmp_path: Path) -> None:
    with raises("file-missing", file=tmp_path / "images"):
        open_chips(partial(open_labels, classes=SHIPS), images=tmp_path / "images", masks=tmp_path)
    with raises("scenes-missing", file=tmp_path):
        open_chips(partial(open_labels, classes=SHIPS), images=tmp_path, masks=tmp_path)


def test_pictures_of_other_formats_are_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for name in ("a.webp", "b.jfif", "c.PNG"):
        picture = Image.fromarray(rng.integers(0, 255, (6, 8, 3)).astype("uint8"))
        picture.save(tmp_path / "images" / name, lossless=True)
    masks = rng.integers(0, 2, (3, 6, 8)).astype("uint8")
    for name, mask in zip("abc", masks, strict=True):
        Image.fromarray(mask).save(tmp_path / "masks" / f"{name}.gif")
    chips = open_chips(
        partial(open_labels, classes=SHIPS), images=tmp_path / "images", masks=tmp_path / "masks"
    )
    whole = Window(0, 0, 6, 8)
    for chip, mask in zip(chips, masks, strict=True):
        assert chip.raster.read(whole).shape == (3, 6, 8)
        assert (chip.labels.read(whole).mask == mask).all()  # type: ignore[attr-defined]
    with Image.open(tmp_path / "images" / "a.webp") as picture:
        expected = np.asarray(picture).transpose(2, 0, 1)
    assert (chips[0].raster.read(whole) == expected).all()
