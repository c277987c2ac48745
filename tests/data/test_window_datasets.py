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
from geotune.data.datamodule import DataModule, build_datamodule
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
        # the value of a pixel says where it is
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


def _equal(one: Sample, two: Sample) -> bool:
    return (
        np.array_equal(one.image, two.image, equal_nan=True)
        and np.array_equal(one.target.mask, two.target.mask)
        and (one.name, one.group) == (two.name, two.group)
    )


def test_a_sample_depends_on_seed_epoch_and_index_alone(scenes: Any) -> None:
    scans = scan_scenes(scenes, 16)
    one = RandomWindowDataset(scenes, scans, 16, seed=3)
    two = RandomWindowDataset(scenes, scans, 16, seed=3)
    backwards = {i: two[i] for i in reversed(range(len(two)))}
    assert all(_equal(one[i], backwards[i]) for i in range(len(one)))
    assert len({one[i].name for i in range(len(one))}) > len(one) // 2
    first = [one[i] for i in range(4)]
    assert not any(_equal(sample, one[len(one) + i]) for i, sample in enumerate(first))
    assert all(_equal(sample, one[i]) for i, sample in enumerate(first))
    assert len(list(one)) == len(one)
    other = RandomWindowDataset(scenes, scans, 16, seed=4)
    assert not all(_equal(sample, other[i]) for i, sample in enumerate(first))


def test_workers_change_nothing_and_see_the_epoch(scenes: Any) -> None:
    windows = RandomWindowDataset(scenes, scan_scenes(scenes, 16), 16, samples=6)
    batches = make_loader(windows, 2, workers=1)
    for epoch in (0, 5):
        batches.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        for k, batch in enumerate(batches):
            first = 6 * epoch + 2 * k
            here = Batch.from_samples([windows[first], windows[first + 1]])
            assert (
                torch.equal(batch.inputs["images"], here.inputs["images"])
                and batch.names == here.names
            )
            assert torch.equal(batch.targets, here.targets)


def test_image_and_mask_are_of_one_place_and_turned_alike(scenes: Any) -> None:
    scans = scan_scenes(scenes, 16)
    plain = RandomWindowDataset(scenes, scans, 16, augment=AugmentOptions(flips=False))
    turned = RandomWindowDataset(scenes, scans, 16)
    ways = set()
    for i in range(30):
        sample = plain[i]
        values = sample.image[0].astype(int).flatten()
        scene = scenes[int(values[0]) // 10_000]
        rows, cols = (values % 10_000) // 50, (values % 10_000) % 50
        mask = scene.labels.read(Window(0, 0, 40, 50)).mask
        assert (sample.target.mask.flatten() == mask[rows, cols]).all()
        assert sample.name == f"{scene.name} ({rows[0]}, {cols[0]})" and sample.group == scene.name
        [way] = [
            k for k in range(NUM_ORIENTATIONS) if (orient(sample.image, k) == turned[i].image).all()
        ]
        assert (orient(sample.target.mask, way) == turned[i].target.mask).all()
        ways.add(way)
    assert len(ways) > 4


@pytest.mark.parametrize(
    "augment",
    [
        AugmentOptions(rotate=180),
        AugmentOptions(scale=(0.5, 2)),
        AugmentOptions(rotate=45, scale=(0.8, 1.25)),
    ],
)
def test_image_and_mask_stay_together_at_any_angle_and_scale(
    write_raster: Any, augment: AugmentOptions
) -> None:
    """The mask of a disc is where the image is bright, and has no holes but beyond the scene."""
    rows, cols = np.mgrid[:90, :80] + 0.5
    disc = (cols - 42) ** 2 + (rows - 48) ** 2 < 15**2
    image = write_raster("a.tif", disc.astype(np.float32) * 100)
    mask = write_raster("mask.tif", disc.astype(np.uint8))
    raster = open_raster(image)
    scenes = [Scene("a", raster, open_labels(mask, raster, classes=CLASSES), group="a")]
    windows = RandomWindowDataset(
        scenes, scan_scenes(scenes, 32), 32, augment=augment, samples=30, seed=1
    )
    bright = 0
    for i in range(30):
        sample = windows[i]
        shown, found = sample.image[0], sample.target.mask
        assert shown.shape == found.shape == (32, 32)
        assert np.isnan(shown).any() <= (found == IGNORE).any()
        sure = (shown < 1) | (shown > 99)
        known = found != IGNORE
        assert (found[sure & known] == (shown[sure & known] > 50)).all() and sure.mean() > 0.3
        edge = ~sure & known
        assert not edge.any() or np.abs(found[edge] - shown[edge] / 100).mean() < 0.45
        bright += int((found == 1).any())
    assert bright > 20


def test_turned_windows_have_no_empty_corners_inside_a_scene(
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


def test_a_dropped_band_is_nan_and_one_band_always_stays(scenes: Any) -> None:
    scans = scan_scenes(scenes, 16)
    dropped = RandomWindowDataset(
        scenes, scans, 16, augment=AugmentOptions(band_dropout=0.9), samples=10
    )
    plain = RandomWindowDataset(scenes, scans, 16, samples=10)
    for i in range(10):
        assert np.array_equal(dropped[i].image, plain[i].image), "its only band"
        assert np.array_equal(dropped[i].target.mask, plain[i].target.mask)


def test_an_epoch_covers_the_scenes_area_once(scenes: Any) -> None:
    scans = scan_scenes(scenes, 16)
    assert len(RandomWindowDataset(scenes, scans, 16)) == 32  # 4 * 40 * 50 / 16**2 = 31.25
    assert len(RandomWindowDataset(scenes, scans, 512)) == 1
    assert len(RandomWindowDataset(scenes, scans, 16, samples=7)) == 7
    with pytest.raises(IndexError):
        RandomWindowDataset(scenes, scans, 16, samples=7)[-1]


def test_every_training_window_holds_a_labelled_pixel(write_raster: Any, tmp_path: Path) -> None:
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
        assert (sample.target.mask == 1).sum() == 45 and (
            sample.target.mask == IGNORE
        ).sum() == 16 * 16 - 45
        assert (np.isnan(sample.image[0]) == (sample.target.mask == IGNORE)).all()


def test_a_grid_shows_every_labelled_pixel_once(write_raster: Any, tmp_path: Path) -> None:
    mask = np.full((50, 70), IGNORE)
    mask[3, 3], mask[49, 69], mask[20:30, 30:40] = 0, 1, 1
    scenes = _scenes(write_raster, tmp_path, {"a": mask, "b": np.full((20, 20), IGNORE)})
    windows = GridWindowDataset(scenes, scan_scenes(scenes, 16), 16)
    seen: list[float] = []
    for i in range(len(windows)):
        sample, place = windows[i], windows.windows[i]
        assert sample.name == f"a ({place.row}, {place.col})" and place.scene == 0
        assert (sample.target.mask != IGNORE).any()
        seen += sample.image[0][sample.target.mask != IGNORE].tolist()
    assert sorted(seen) == np.flatnonzero(mask != IGNORE).tolist()
    assert len(windows) < 20


def _parts(scenes: Any, **options: Any) -> DataModule:
    parts = split_by_list(scenes, ListSplitOptions(train=["a", "b"], val=["c"], test=["d"]))
    return build_datamodule(parts, window=16, allow_overlap=True, **options)


@pytest.mark.parametrize("augment", [True, False])
def test_fixed_windows_are_the_same_in_every_epoch(scenes: Any, augment: bool) -> None:
    """Those of the first epoch with seed 0, in another order and laid in other ways."""
    scans = scan_scenes(scenes, 16)
    options: dict[str, Any] = {
        "samples": 12,
        "augment": AugmentOptions(flips=augment),
        "brightness": 0.5,
    }
    options["band_std"] = [1.0]
    fixed = FixedWindowDataset(RandomWindowDataset(scenes, scans, 16, seed=3, **options))
    plain = RandomWindowDataset(scenes, scans, 16, samples=12, augment=AugmentOptions(flips=False))
    assert len(fixed) == 12 and fixed.num_orientations == (NUM_ORIENTATIONS if augment else 1)
    assert all(_equal(fixed.sample(i), plain[i]) for i in range(12))
    ways = set()
    for epoch in range(3):
        chosen = [fixed.resolve_index(epoch * 12 + i) for i in range(12)]
        which = [one for one, _ in chosen]
        assert (which == list(range(12))) == (epoch == 0)
        assert sorted(which) == list(range(12))
        for i, (one, way) in enumerate(chosen):
            sample = fixed[epoch * 12 + i]
            assert np.array_equal(sample.image, orient(plain[one].image, way), equal_nan=True)
            assert np.array_equal(sample.target.mask, orient(plain[one].target.mask, way))
            ways.add(way)
    assert ways == (set(range(NUM_ORIENTATIONS)) if augment else {0})


def test_how_fixed_windows_lie_depends_on_the_seed_and_not_on_what_was_read(scenes: Any) -> None:
    scans = scan_scenes(scenes, 16)

    def chosen(seed: int, indices: Iterable[int]) -> dict[int, tuple[int, int]]:
        fixed = FixedWindowDataset(RandomWindowDataset(scenes, scans, 16, seed=seed, samples=7))
        return {index: fixed.resolve_index(index) for index in indices}

    assert chosen(1, range(30)) == dict(sorted(chosen(1, reversed(range(30))).items()))
    assert chosen(1, range(30)) != chosen(2, range(30))
    with pytest.raises(IndexError):
        chosen(1, [-1])


def test_prepare_makes_all_parts(scenes: Any) -> None:
    read: list[str] = []
    made = _parts(scenes, samples=5, progress=lambda scene: read.append(scene.name))
    assert sorted(read) == ["a", "b", "c", "d"]
    assert made.splits == {"train": ["a", "b"], "val": ["c"], "test": ["d"]}
    assert len(made.train) == 5 and len(made.val) == 12 and made.test is not None
    assert made.statistics.bands == ("red",)
    assert made.statistics.mean[0] == pytest.approx(1999 / 2 + 5000)  # of train alone
    assert made.class_counts["val"] == [
        int((np.concatenate([made.val[i].target.mask for i in range(12)]) == k).sum())
        for k in (0, 1)
    ]
    assert len(made.train_grid) == 24 and made.distances_m["train-val"] == 0
    assert all("overlap by" in note for note in made.notes if "scenes" not in note)
    parts = split_by_list(scenes, ListSplitOptions(train=["a"], val=["b"]))
    without = build_datamodule(parts, window=16, allow_overlap=True)
    assert without.test is None and without.class_counts["test"] == []


def test_a_part_without_labels_is_refused(write_raster: Any, tmp_path: Path) -> None:
    masks = {"a": np.ones((9, 9)), "b": np.full((9, 9), IGNORE)}
    scenes = _scenes(write_raster, tmp_path, masks)
    with raises("split-unlabelled", key="data.split.val"):
        build_datamodule(split_by_list(scenes, ListSplitOptions(train=["a"], val=["b"])), window=16)


def test_an_absent_class_is_noted(write_raster: Any, tmp_path: Path) -> None:
    scenes = _scenes(write_raster, tmp_path, {"a": np.zeros((9, 9)), "b": np.ones((9, 9))})
    parts = split_by_list(scenes, ListSplitOptions(train=["a"], val=["b"]))
    made = build_datamodule(parts, window=16, allow_overlap=True)
    assert [note for note in made.notes if note.startswith("no pixel")] == [
        "no pixel of ship in the train split",
        "no pixel of background in the val split",
    ]


@pytest.mark.parametrize("size", [5, 64, 100])
def test_batches_hold_what_the_samples_hold(size: int) -> None:
    """However each lies: those on their side are copied in strips."""
    image = np.random.default_rng(0).random((3, 2, size, size), dtype=np.float32)
    mask = np.arange(size * size, dtype=np.uint8).reshape(size, size)
    laid = [
        Sample(orient(image, way), PixelClasses(mask).rotate90_flip(way), str(way), "g")
        for way in range(8)
    ]
    batch = Batch.from_samples(laid)
    for way, (pixels, classes) in enumerate(
        zip(batch.inputs["images"], batch.targets, strict=True)
    ):
        assert np.array_equal(pixels.numpy(), orient(image, way))
        assert np.array_equal(classes.numpy(), orient(mask, way))
    assert batch.targets.dtype == torch.int64
