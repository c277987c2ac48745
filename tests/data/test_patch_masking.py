"""Hidden patches: how many, which, and which pixels count."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from geotune.config import parse_recipe
from geotune.data.labels.pixel_data import HIDDEN, NO_DATA, VISIBLE, NoLabels, PixelData
from geotune.data.patch_masking import PatchMasking
from geotune.data.raster.windows import Window
from geotune.factory.build_data import build_data
from geotune.types import Sample
from helpers.errors import raises

Values = Callable[..., dict[str, Any]]


def sample(image: np.ndarray[Any, Any]) -> Sample:
    target = NoLabels("a.tif").read(Window(0, 0, *image.shape[-2:]))  # type: ignore[arg-type]
    return Sample(image.astype(np.float32), target, "a (0, 0)", "a")


def states_of(sample: Sample) -> np.ndarray[Any, Any]:
    assert isinstance(sample.target, PixelData)
    return sample.target.states


@pytest.mark.parametrize(("ratio", "hidden"), [(0.6, 10), (0.01, 1), (0.99, 15)])
def test_a_share_of_the_patches_is_hidden(ratio: float, hidden: int) -> None:
    masked = PatchMasking(ratio, 4).apply(sample(np.ones((2, 16, 16))), np.random.default_rng(0))
    assert masked.mask is not None and masked.mask.shape == (4, 4) and masked.mask.sum() == hidden
    states = states_of(masked)
    assert states.shape == (2, 16, 16)
    expected = np.where(masked.mask.repeat(4, 0).repeat(4, 1), HIDDEN, VISIBLE)
    assert (states == expected).all()


def test_pixels_without_data_never_count() -> None:
    image = np.ones((2, 8, 8))
    image[:, :4] = np.nan  # the upper patches
    image[1, 7, 7] = np.nan
    for seed in range(8):
        masked = PatchMasking(0.5, 4).apply(sample(image), np.random.default_rng(seed))
        assert masked.mask is not None
        assert masked.mask[0].sum() == 0 and masked.mask[1].sum() == 1
        states = states_of(masked)
        assert (states[:, :4] == NO_DATA).all() and states[1, 7, 7] == NO_DATA
        assert (states[0, 4:] != NO_DATA).all()
    flagged = replace(sample(np.ones((1, 8, 8))), target=PixelData(np.zeros((8, 8), np.uint8)))
    masked = PatchMasking(0.5, 4).apply(flagged, np.random.default_rng(0))
    assert masked.mask is not None and not masked.mask.any()
    assert (states_of(masked) == NO_DATA).all()


def pretraining(tiny_values: Values, **changes: Any) -> Any:
    values = tiny_values(
        {
            "task": {"kind": "reconstruct", "teacher_weight": 0, "patch": 8},
            "decoder": {"kind": "linear", "upsample": "stride"},
            **changes,
        }
    )
    return parse_recipe(values)


def test_training_masks_follow_seed_epoch_and_index_and_validation_masks_stay(
    tiny_values: Values,
) -> None:
    data = build_data(pretraining(tiny_values))
    again = build_data(pretraining(tiny_values))
    other = build_data(pretraining(tiny_values, **{"train.seed": 1}))
    count = len(data.train)
    first, second = data.train[0], data.train[count]
    assert first.mask is not None and second.mask is not None
    assert not np.array_equal(first.mask, second.mask)
    np.testing.assert_array_equal(first.mask, again.train[0].mask)  # type: ignore[arg-type]
    np.testing.assert_array_equal(first.image, again.train[0].image)
    assert any(
        not np.array_equal(data.train[i].mask, other.train[i].mask)  # type: ignore[arg-type]
        for i in range(4)
    )
    masks = [data.val[i].mask for i in range(len(data.val))]
    for i, mask in enumerate(masks):
        np.testing.assert_array_equal(mask, other.val[i].mask)  # type: ignore[arg-type]
    assert len({m.tobytes() for m in masks if m is not None}) > 1
    kept = data.val.subset({"c"}, 2)
    np.testing.assert_array_equal(kept[0].mask, masks[0])  # type: ignore[arg-type]


@pytest.mark.parametrize("labels", [True, False])
def test_label_files_are_neither_read_nor_scenes(
    tiny_values: Values, labels: bool, tmp_path: Any, write_tiny_scenes: Callable[..., Any]
) -> None:
    folder = write_tiny_scenes(tmp_path)
    for path in (folder / "labels").iterdir():
        path.write_bytes(b"no raster")
        if labels:
            path.rename(folder / "scenes" / f"{path.stem}_label.tif")
    pattern = f"{folder}/scenes/{{stem}}_label.tif" if labels else None
    values = {"data.labels": pattern}
    data = build_data(
        parse_recipe(
            tiny_values(
                {
                    "task": {"kind": "reconstruct", "teacher_weight": 0, "patch": 8},
                    **values,
                },
                data=folder,
            )
        )
    )
    assert data.splits == {"train": ["a", "b"], "val": ["c"], "test": ["d"]}
    assert data.class_counts["val"] == [64 * 64]


def test_images_without_any_data_are_an_error(
    tiny_values: Values, tmp_path: Any, write_tiny_scenes: Callable[..., Any]
) -> None:
    import rasterio

    folder = write_tiny_scenes(tmp_path)
    with rasterio.open(folder / "scenes" / "c.tif", "r+") as file:
        file.nodata = -1
        file.write(np.full((3, 64, 64), -1, dtype=np.float32))
    recipe = parse_recipe(
        tiny_values({"task": {"kind": "reconstruct", "teacher_weight": 0, "patch": 8}}, data=folder)
    )
    with raises("images-empty", key="data.split.val", mentions=["c", "data.nodata"]):
        build_data(recipe)


def test_folders_of_chips_and_images_need_no_labels(
    tiny_values: Values, tiny_scenes: Any, tmp_path: Any
) -> None:
    for data in (
        {"kind": "chips", "images": f"{tiny_scenes}/scenes", "masks": str(tmp_path / "none")},
        {"kind": "images", "images": f"{tiny_scenes}/scenes"},
    ):
        split = {"kind": "list", "train": ["a", "b"], "val": ["c", "d"]}
        found = build_data(pretraining(tiny_values, data={**data, "window": 32, "split": split}))
        assert found.splits["train"] == ["a", "b"] and len(found.val) == 8
    (tmp_path / "list.csv").write_text("path,split\na.tif,train\nb.tif,val\n", encoding="utf-8")
    data = {
        "kind": "images",
        "images": f"{tiny_scenes}/scenes",
        "labels": str(tmp_path / "list.csv"),
        "window": 32,
        "split": {"kind": "column"},
    }
    found = build_data(pretraining(tiny_values, data=data))
    assert found.splits["train"] == ["a"] and found.splits["val"] == ["b"]
    with raises("settings-incompatible", key="task.patch", mentions=["64", "32"]):
        build_data(
            pretraining(
                tiny_values,
                data={
                    "kind": "images",
                    "images": f"{tiny_scenes}/scenes",
                    "split": {"kind": "random"},
                },
                task={"kind": "reconstruct", "teacher_weight": 0, "patch": 24},
            )
        )
