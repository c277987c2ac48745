from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from geotune.config.data_options import AugmentOptions
from geotune.config.split_options import ListSplitOptions
from geotune.data.checks.scan import scan_scenes
from geotune.data.datamodule import build_datamodule
from geotune.data.labels.open_labels import open_labels
from geotune.data.labels.targets import PixelClasses
from geotune.data.raster.open_raster import open_raster
from geotune.data.raster.orientation import NUM_ORIENTATIONS, orient
from geotune.data.raster.windows import Window
from geotune.data.scenes.open_scenes import open_scenes
from geotune.data.scenes.scene import Scene
from geotune.data.splits.explicit import split_by_list
from geotune.data.window_datasets import FixedWindowDataset, GridWindowDataset, RandomWindowDataset
from geotune.training.loaders import make_loader
from geotune.types import IGNORE, Batch, Sample
from helpers.errors import raises

CLASSES = ["background", "ship"]


def _scenes(write_raster: Any, folder: Path, masks: dict[str, Any]) -> Any:
    for i, (name, mask) in enumerate(masks.items()):
        # the value of a pixel is its position
        image = np.arange(mask.size, dtype="float32").reshape(1, *mask.shape) + 10_000 * i
        write_raster(f"{name}.tif", image, bands=["red"])
        write_raster(f"l/{name}.tif", mask.astype("uint8"))
    return open_scenes(
        partial(open_labels, classes=CLASSES),
        scenes=f"{folder}/*.tif",
        labels=f"{folder}/l/{{stem}}.tif",
    )


@pytest.fixture
def scenes(write_raster: Any, tmp_path: Path) -> Any:
    rng = np.random.default_rng(0)
    masks = {name: rng.choice([0, 1, 255], (40, 50)) for name in ("a", "b", "c", "d")}
    return _scenes(write_raster, tmp_path, masks)


def _equal(a: Sample, b: Sample) -> bool:
    return (
        np.array_equal(a.image, b.image, equal_nan=True)
        and np.array_equal(a.target.mask, b.target.mask)
        and (a.name, a.group) == (b.name, b.group)
    )


def test_a_sample_depends_only_on_seed_epoch_and_index(scenes: Any) -> None:
    scans = scan_scenes(scenes, 16)
    dataset = RandomWindowDataset(scenes, scans, 16, seed=3)
    size = len(dataset)
    equal_dataset = RandomWindowDataset(scenes, scans, 16, seed=3)
    backwards = {i: equal_dataset[i] for i in reversed(range(size))}
    assert all(_equal(dataset[i], backwards[i]) for i in range(size))
    assert len({dataset[i].name for i in range(size)}) > size // 2
    first = [dataset[i] for i in range(4)]
    assert not any(_equal(sample, dataset[size + i]) for i, sample in enumerate(first))
    assert all(_equal(sample, dataset[i]) for i, sample in enumerate(first))
    assert len(list(dataset)) == size
    other_seed = RandomWindowDataset(scenes, scans, 16, seed=4)
    assert not all(_equal(sample, other_seed[i]) for i, sample in enumerate(first))


def test_without_replacement_each_image_with_labels_is_drawn_once_per_epoch(
    write_raster: Any, tmp_path: Path
) -> None:
    empty = np.full((40, 50), 255)
    masks = {name: empty if name == "c" else np.ones((40, 50)) for name in "abcdefg"}
    scenes = _scenes(write_raster, tmp_path, masks)
    scans = scan_scenes(scenes, 64)
    windows = RandomWindowDataset(scenes, scans, 64, seed=3, replacement=False)
    size = len(windows)
    orders = [[windows[epoch * size + i].group for i in range(size)] for epoch in range(3)]
    assert all(sorted(order) == list("abdefg") for order in orders)
    assert orders[0] != orders[1] != orders[2]
    assert [windows[size + i].group for i in range(size)] == orders[1]
    fixed = FixedWindowDataset(windows)
    assert sorted(scenes[position.scene].group for position in fixed.windows) == list("abdefg")
    with raises("settings-incompatible", key="data.replacement", mentions=["40x50"]):
        RandomWindowDataset(scenes, scans, 49, replacement=False)


def test_workers_return_the_samples_of_the_current_epoch(scenes: Any) -> None:
    windows = RandomWindowDataset(scenes, scan_scenes(scenes, 16), 16, samples=6)
    batches = make_loader(windows, 2, workers=1)
    for epoch in (0, 5):
        batches.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        for k, batch in enumerate(batches):
            first = 6 * epoch + 2 * k
            expected = Batch.from_samples([windows[first], windows[first + 1]])
            assert torch.equal(batch.inputs["images"], expected.inputs["images"])
            assert torch.equal(batch.targets, expected.targets) and batch.names == expected.names


def test_image_and_mask_have_the_same_position_and_orientation(scenes: Any) -> None:
    scans = scan_scenes(scenes, 16)
    plain = RandomWindowDataset(scenes, scans, 16, augment=AugmentOptions(flips=False))
    oriented = RandomWindowDataset(scenes, scans, 16)
    orientations = set()
    for i in range(30):
        sample = plain[i]
        values = sample.image[0].astype(int).flatten()
        scene = scenes[int(values[0]) // 10_000]
        rows, cols = (values % 10_000) // 50, (values % 10_000) % 50
        mask = scene.labels.read(Window(0, 0, 40, 50)).mask
        assert (sample.target.mask.flatten() == mask[rows, cols]).all()
        assert sample.name == f"{scene.name} ({rows[0]}, {cols[0]})" and sample.group == scene.name
        [orientation] = [
            k
            for k in range(NUM_ORIENTATIONS)
            if (orient(sample.image, k) == oriented[i].image).all()
        ]
        assert (orient(sample.target.mask, orientation) == oriented[i].target.mask).all()
        orientations.add(orientation)
    assert len(orientations) > 4


@pytest.mark.parametrize(
    "augment",
    [
        AugmentOptions(rotate=180),
        AugmentOptions(scale=(0.5, 2)),
        AugmentOptions(rotate=45, scale=(0.8, 1.25)),
    ],
)
def test_image_and_mask_are_rotated_and_scaled_together(
    write_raster: Any, augment: AugmentOptions
) -> None:
    """The mask of a disc covers the bright pixels and is unlabelled only outside the scene."""
    rows, cols = np.mgrid[:90, :80] + 0.5
    disc = (cols - 42) ** 2 + (rows - 48) ** 2 < 15**2
    image = write_raster("a.tif", disc.astype(np.float32) * 100)
    labels = write_raster("mask.tif", disc.astype(np.uint8))
    raster = open_raster(image)
    scenes = [Scene("a", raster, open_labels(labels, raster, classes=CLASSES), group="a")]
    windows = RandomWindowDataset(
        scenes, scan_scenes(scenes, 32), 32, augment=augment, samples=30, seed=1
    )
    bright = 0
    for i in range(30):
        sample = windows[i]
        pixels, mask = sample.image[0], sample.target.mask
        assert pixels.shape == mask.shape == (32, 32)
        assert np.isnan(pixels).any() <= (mask == IGNORE).any()
        pure = (pixels < 1) | (pixels > 99)
        known = mask != IGNORE
        assert (mask[pure & known] == (pixels[pure & known] > 50)).all() and pure.mean() > 0.3
        edge = ~pure & known
        assert not edge.any() or np.abs(mask[edge] - pixels[edge] / 100).mean() < 0.45
        bright += int((mask == 1).any())
    assert bright > 20


def test_rotated_windows_have_no_empty_corners_inside_a_scene(
    write_raster: Any, tmp_path: Path
) -> None:
    scenes = _scenes(write_raster, tmp_path, {"a": np.pad(np.ones((1, 1)), 60)})
    windows = RandomWindowDataset(
        scenes,
        scan_scenes(scenes, 32),
        32,
        augment=AugmentOptions(rotate=180),
        samples=20,
        rare_class_fraction=1,
    )
    inside = [
        sample
        for sample in map(windows.__getitem__, range(40))
        if (sample.target.mask == 1).sum() and not np.isnan(sample.image).any()
    ]
    assert len(inside) > 10


def test_band_dropout_keeps_the_only_band(scenes: Any) -> None:
    scans = scan_scenes(scenes, 16)
    dropped = RandomWindowDataset(
        scenes, scans, 16, augment=AugmentOptions(band_dropout=0.9), samples=10
    )
    plain = RandomWindowDataset(scenes, scans, 16, samples=10)
    for i in range(10):
        assert np.array_equal(dropped[i].image, plain[i].image)
        assert np.array_equal(dropped[i].target.mask, plain[i].target.mask)


def test_an_epoch_covers_the_area_of_the_scenes_once(scenes: Any) -> None:
    scans = scan_scenes(scenes, 16)
    assert len(RandomWindowDataset(scenes, scans, 16)) == 32  # 4 * 40 * 50 / 16**2 = 31.25
    assert len(RandomWindowDataset(scenes, scans, 512)) == 1
    assert len(RandomWindowDataset(scenes, scans, 16, samples=7)) == 7
    with pytest.raises(IndexError):
        RandomWindowDataset(scenes, scans, 16, samples=7)[-1]


def test_every_training_window_contains_a_labelled_pixel(write_raster: Any, tmp_path: Path) -> None:
    mask = np.full((400, 400), IGNORE)
    mask[300, 310] = 1
    scenes = _scenes(write_raster, tmp_path, {"a": mask})
    dataset = RandomWindowDataset(
        scenes, scan_scenes(scenes, 8), 8, samples=20, rare_class_fraction=0
    )
    assert all((dataset[i].target.mask == 1).any() for i in range(20))


def test_scenes_smaller_than_the_window_are_padded(write_raster: Any, tmp_path: Path) -> None:
    scenes = _scenes(write_raster, tmp_path, {"a": np.ones((5, 9))})
    scans = scan_scenes(scenes, 16)
    for sample in (
        RandomWindowDataset(scenes, scans, 16)[0],
        GridWindowDataset(scenes, scans, 16)[0],
    ):
        assert sample.image.shape == (1, 16, 16) and sample.target.mask.shape == (16, 16)
        ignored = sample.target.mask == IGNORE
        assert (sample.target.mask == 1).sum() == 45 and ignored.sum() == 16 * 16 - 45
        assert (np.isnan(sample.image[0]) == ignored).all()


def test_a_grid_contains_every_labelled_pixel_once(write_raster: Any, tmp_path: Path) -> None:
    mask = np.full((50, 70), IGNORE)
    mask[3, 3], mask[49, 69], mask[20:30, 30:40] = 0, 1, 1
    scenes = _scenes(write_raster, tmp_path, {"a": mask, "b": np.full((20, 20), IGNORE)})
    windows = GridWindowDataset(scenes, scan_scenes(scenes, 16), 16)
    labelled: list[float] = []
    for i, position in enumerate(windows.windows):
        sample = windows[i]
        assert sample.name == f"a ({position.row}, {position.col})" and position.scene == 0
        assert (sample.target.mask != IGNORE).any()
        labelled += sample.image[0][sample.target.mask != IGNORE].tolist()
    assert sorted(labelled) == np.flatnonzero(mask != IGNORE).tolist()
    assert len(windows) < 20


@pytest.mark.parametrize("flips", [True, False])
def test_fixed_windows_repeat_in_another_order_and_orientation(scenes: Any, flips: bool) -> None:
    """The windows are those of the first epoch with seed 0."""
    scans = scan_scenes(scenes, 16)
    options: dict[str, Any] = {"samples": 12, "augment": AugmentOptions(flips=flips)}
    options |= {"brightness": 0.5, "band_std": [1.0]}
    fixed = FixedWindowDataset(RandomWindowDataset(scenes, scans, 16, seed=3, **options))
    plain = RandomWindowDataset(scenes, scans, 16, samples=12, augment=AugmentOptions(flips=False))
    assert len(fixed) == 12 and fixed.num_orientations == (NUM_ORIENTATIONS if flips else 1)
    assert all(_equal(fixed.sample(i), plain[i]) for i in range(12))
    orientations = set()
    for epoch in range(3):
        resolved = [fixed.resolve_index(epoch * 12 + i) for i in range(12)]
        order = [window for window, _ in resolved]
        assert (order == list(range(12))) == (epoch == 0)
        assert sorted(order) == list(range(12))
        for i, (window, k) in enumerate(resolved):
            sample = fixed[epoch * 12 + i]
            assert np.array_equal(sample.image, orient(plain[window].image, k), equal_nan=True)
            assert np.array_equal(sample.target.mask, orient(plain[window].target.mask, k))
            orientations.add(k)
    assert orientations == (set(range(NUM_ORIENTATIONS)) if flips else {0})


def test_the_order_of_fixed_windows_depends_only_on_the_seed(scenes: Any) -> None:
    scans = scan_scenes(scenes, 16)

    def resolve(seed: int, indices: Iterable[int]) -> dict[int, tuple[int, int]]:
        fixed = FixedWindowDataset(RandomWindowDataset(scenes, scans, 16, seed=seed, samples=7))
        return {index: fixed.resolve_index(index) for index in indices}

    assert resolve(1, range(30)) == dict(sorted(resolve(1, reversed(range(30))).items()))
    assert resolve(1, range(30)) != resolve(2, range(30))
    with pytest.raises(IndexError):
        resolve(1, [-1])


def test_the_datamodule_has_datasets_and_statistics_of_all_splits(scenes: Any) -> None:
    read: list[str] = []
    splits = split_by_list(scenes, ListSplitOptions(train=["a", "b"], val=["c"], test=["d"]))
    data = build_datamodule(
        splits,
        window=16,
        allow_overlap=True,
        samples=5,
        progress=lambda scene: read.append(scene.name),
    )
    assert sorted(read) == ["a", "b", "c", "d"]
    assert data.splits == {"train": ["a", "b"], "val": ["c"], "test": ["d"]}
    assert len(data.train) == 5 and len(data.val) == 12 and data.test is not None
    assert data.statistics.bands == ("red",)
    assert data.statistics.mean[0] == pytest.approx(1999 / 2 + 5000)  # of train only
    masks = np.concatenate([data.val[i].target.mask for i in range(12)])
    assert data.class_counts["val"] == [int((masks == k).sum()) for k in (0, 1)]
    assert len(data.train_grid) == 24 and data.distances_m["train-val"] == 0
    assert all("overlap by" in note for note in data.notes if "scenes" not in note)
    splits = split_by_list(scenes, ListSplitOptions(train=["a"], val=["b"]))
    without_test = build_datamodule(splits, window=16, allow_overlap=True)
    assert without_test.test is None and without_test.class_counts["test"] == []


def test_a_split_without_labels_is_rejected(write_raster: Any, tmp_path: Path) -> None:
    masks = {"a": np.ones((9, 9)), "b": np.full((9, 9), IGNORE)}
    scenes = _scenes(write_raster, tmp_path, masks)
    with raises("split-unlabelled", key="data.split.val"):
        build_datamodule(split_by_list(scenes, ListSplitOptions(train=["a"], val=["b"])), window=16)


def test_a_class_missing_in_a_split_is_noted(write_raster: Any, tmp_path: Path) -> None:
    scenes = _scenes(write_raster, tmp_path, {"a": np.zeros((9, 9)), "b": np.ones((9, 9))})
    splits = split_by_list(scenes, ListSplitOptions(train=["a"], val=["b"]))
    data = build_datamodule(splits, window=16, allow_overlap=True)
    assert [note for note in data.notes if note.startswith("no pixel")] == [
        "no pixel of ship in the train split",
        "no pixel of background in the val split",
    ]


@pytest.mark.parametrize("size", [5, 64, 100])
def test_batches_stack_samples_of_any_memory_layout(size: int) -> None:
    """Transposed images are copied in strips."""
    image = np.random.default_rng(0).random((3, 2, size, size), dtype=np.float32)
    mask = np.arange(size * size, dtype=np.uint8).reshape(size, size)
    samples = [
        Sample(orient(image, i), PixelClasses(mask).rotate90_flip(i), str(i), "g") for i in range(8)
    ]
    batch = Batch.from_samples(samples)
    for i, (pixels, classes) in enumerate(zip(batch.inputs["images"], batch.targets, strict=True)):
        assert np.array_equal(pixels.numpy(), orient(image, i))
        assert np.array_equal(classes.numpy(), orient(mask, i))
    assert batch.targets.dtype == torch.int64
