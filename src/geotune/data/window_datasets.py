"""Window datasets: random windows for training, a grid for validation and testing."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from typing import ClassVar, NamedTuple

import numpy as np

from geotune.config.data_options import AugmentOptions
from geotune.data.augment import drop_bands, jitter_brightness
from geotune.data.checks.scan import SceneScan
from geotune.data.patch_masking import PatchMasking
from geotune.data.raster.metadata import time_and_location
from geotune.data.raster.orientation import NUM_ORIENTATIONS, orient
from geotune.data.raster.source import Image, has_data
from geotune.data.raster.warp import rotated_crop
from geotune.data.raster.windows import Window, grid_windows
from geotune.data.sampling import WindowSampler
from geotune.data.scenes.scene import Scene
from geotune.errors import GeotuneError
from geotune.types import Sample, Target

MAX_TRIES = 10
DEFAULT_AUGMENT = AugmentOptions()


class RandomWindowDataset:
    """Random augmented windows of the training scenes.

    The dataset is infinite: `dataset[epoch * len(dataset) + i]` is sample `i` of an epoch. It
    depends only on `(seed, epoch, i)`, not on workers or the order of reading.

    Args:
        scenes: the training scenes.
        scans: the scan of each of them.
        window: size of the windows in pixels; smaller scenes are padded with NaN.
        samples: windows per epoch; by default as many as cover the area of the scenes once.
        rare_class_fraction: fraction of windows drawn around a label, see `WindowSampler`.
        augment: augmentation options.
        brightness: strength of `jitter_brightness`; 0 disables it.
        band_std: standard deviation of each band, for brightness jitter.
        seed: of the random draws.
        metadata: metadata to return with the samples: `time`, `location`.
        replacement: draw windows independently; otherwise each scene with labels gives one window
            per epoch, in random order.
        masking: hides patches of each window, others in every epoch; None hides nothing.

    Raises `GeotuneError` without `replacement` if a scene is larger than the window.
    """

    infinite: ClassVar[bool] = True

    def __init__(
        self,
        scenes: Sequence[Scene],
        scans: Sequence[SceneScan],
        window: int,
        *,
        samples: int | None = None,
        rare_class_fraction: float = 0.5,
        augment: AugmentOptions = DEFAULT_AUGMENT,
        brightness: float = 0.0,
        band_std: Sequence[float] = (),
        seed: int = 0,
        metadata: Sequence[str] = (),
        replacement: bool = True,
        masking: PatchMasking | None = None,
    ) -> None:
        self.scenes = list(scenes)
        self.metadata = tuple(metadata)
        self.window = window
        self.augment = augment
        self.brightness = brightness
        self.band_std = tuple(band_std)
        self.seed = seed
        self.masking = masking
        self.sampler = WindowSampler(
            [scene.shape for scene in scenes],
            np.stack([scan.class_counts for scan in scans]),
            [scan.positions for scan in scans],
            rare_class_fraction,
        )
        area = sum(height * width for height, width in self.sampler.shapes)
        self.samples = samples or max(1, math.ceil(area / window**2))
        self._shuffled: _Shuffled | None = None
        if not replacement:
            _require_one_window(self.scenes, window)
            labelled = [i for i, scan in enumerate(scans) if scan.labelled_windows]
            self._shuffled = _Shuffled(labelled, seed)
            self.samples = len(labelled)

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> Sample:
        if index < 0:
            raise IndexError(index)
        rng = np.random.default_rng([self.seed, *divmod(index, self.samples)])
        _, sample = self.draw(index, rng)
        if self.augment.flips:
            sample = _orient_sample(sample, int(rng.integers(NUM_ORIENTATIONS)))
        image, target = sample.image, sample.target
        if self.brightness:
            image = jitter_brightness(image, rng, self.brightness, self.band_std)
        if self.augment.band_brightness:
            image = jitter_brightness(
                image, rng, self.augment.band_brightness, self.band_std, by_band=True
            )
        if self.augment.band_dropout:
            image = drop_bands(image, rng, self.augment.band_dropout)
            target = target.masked(has_data(image))
        sample = replace(sample, image=image, target=target)
        return sample if self.masking is None else self.masking.apply(sample, rng)

    def draw(self, index: int, rng: np.random.Generator) -> tuple[WindowIndex, Sample]:
        """Draw the position of a window with labels, and its sample."""
        if self._shuffled is not None:
            return self._draw_window(rng, partial(self.sampler.draw_in, self._shuffled[index]))
        for _ in range(MAX_TRIES):
            position, sample = self._draw_window(rng, self.sampler.draw)
            if sample.target.has_labels:
                return position, sample
        return self._draw_window(rng, self.sampler.draw_around_label)

    def _draw_window(
        self,
        rng: np.random.Generator,
        draw: Callable[[np.random.Generator, int], tuple[int, Window]],
    ) -> tuple[WindowIndex, Sample]:
        """Draw and read a window, rotated and scaled if `augment` asks for it."""
        if not self.augment.resamples:
            index, window = draw(rng, self.window)
            image, target = self.scenes[index].read(window)
        else:
            scale = float(np.exp(rng.uniform(*np.log(self.augment.scale))))
            angle = float(rng.uniform(-self.augment.rotate, self.augment.rotate))
            index, window = draw(rng, max(1, round(self.window / scale)))
            scene = self.scenes[index]
            # centred on the part of the window that lies in the scene
            inner = window.clip(scene.shape) or window
            x, y = inner.col + inner.width / 2, inner.row + inner.height / 2
            crop = rotated_crop(x, y, self.window, angle=angle, scale=scale)
            window, (image, target) = crop.window, scene.read_crop(crop)
        sample = _make_sample(self.scenes[index], window, image, target, self.metadata)
        return WindowIndex(index, window.row, window.col), sample

    def __iter__(self) -> Iterator[Sample]:
        """The samples of the first epoch."""
        return (self[index] for index in range(len(self)))


class _Shuffled:
    """Scene `[epoch * n + i]`: the scenes in an order of `(seed, epoch)`."""

    def __init__(self, scenes: Sequence[int], seed: int) -> None:
        self.scenes = np.array(scenes)
        self.seed = seed
        self._epoch, self._order = -1, self.scenes

    def __getitem__(self, index: int) -> int:
        epoch, i = divmod(index, len(self.scenes))
        if epoch != self._epoch:
            rng = np.random.default_rng([self.seed, epoch])
            self._epoch, self._order = epoch, rng.permutation(self.scenes)
        return int(self._order[i])


def _require_one_window(scenes: Sequence[Scene], window: int) -> None:
    large = [scene for scene in scenes if max(scene.shape) > window]
    if large:
        height, width = large[0].shape
        raise GeotuneError(
            f"data.replacement: {large[0].name} is larger than data.window ({height}x{width} and "
            f"{window} pixels), so one window does not cover it; use a larger window, or remove "
            "data.replacement",
            code="settings-incompatible",
            key="data.replacement",
            file=large[0].raster.path,
        )


class FixedWindowDataset:
    """Training windows that repeat in every epoch, so that their features can be cached.

    The windows are those of the first epoch of `RandomWindowDataset` with seed 0. From the second
    epoch on their order and orientation vary: `windows[epoch * len(windows) + i]` is a function of
    `(seed, epoch, i)`. Brightness augmentation is disabled.

    Attributes:
        windows: positions of the windows.
        num_orientations: how many of the eight orientations a window can have.
    """

    infinite: ClassVar[bool] = True

    def __init__(self, windows: RandomWindowDataset) -> None:
        self.scenes = windows.scenes
        self.metadata = windows.metadata
        self.window = windows.window
        self.seed = windows.seed
        self.num_orientations = NUM_ORIENTATIONS if windows.augment.flips else 1
        rngs = (np.random.default_rng([0, 0, index]) for index in range(len(windows)))
        self.windows = [windows.draw(index, rng)[0] for index, rng in enumerate(rngs)]
        self._order = 0, np.arange(len(self.windows))

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> Sample:
        return self.sample(*self.resolve_index(index))

    def resolve_index(self, index: int) -> tuple[int, int]:
        """The window and the orientation of sample `index`."""
        if index < 0:
            raise IndexError(index)
        epoch, i = divmod(index, len(self))
        if epoch != self._order[0]:
            order = np.arange(len(self))
            if epoch:
                np.random.default_rng([self.seed, epoch]).shuffle(order)
            self._order = epoch, order
        rng = np.random.default_rng([self.seed, epoch, i])
        return int(self._order[1][i]), int(rng.integers(self.num_orientations))

    def sample(self, index: int, orientation: int = 0) -> Sample:
        """Read a window in one of the eight orientations."""
        return _read_sample(self, self.windows[index], orientation)

    def __iter__(self) -> Iterator[Sample]:
        """The samples of the first epoch."""
        return (self[index] for index in range(len(self)))


class WindowIndex(NamedTuple):
    """Position of a window: index of its scene, row and column of its first pixel."""

    scene: int
    row: int
    col: int


class GridWindowDataset:
    """The windows of a regular grid that contain labels: every labelled pixel occurs once.

    Args:
        scenes: the scenes.
        scans: the scan of each of them, with a grid of `window` pixels.
        window: size of the windows in pixels; at the edges they are padded with NaN.
        metadata: metadata to return with the samples: `time`, `location`.
        masking: hides the same patches of a window whenever it is read; None hides nothing.
    """

    infinite: ClassVar[bool] = False
    num_orientations: ClassVar[int] = 1

    def __init__(
        self,
        scenes: Sequence[Scene],
        scans: Sequence[SceneScan],
        window: int,
        *,
        metadata: Sequence[str] = (),
        masking: PatchMasking | None = None,
    ) -> None:
        self.scenes = list(scenes)
        self.metadata = tuple(metadata)
        self.masking = masking
        self.window = window
        self.windows = [
            WindowIndex(i, cell.row, cell.col)
            for i, (scene, scan) in enumerate(zip(scenes, scans, strict=True))
            for labelled in [set(scan.labelled_windows)]
            for cell in grid_windows(scene.shape, window)
            if (cell.row, cell.col) in labelled
        ]

    def subset(self, groups: Collection[str], max_windows: int | None = None) -> GridWindowDataset:
        """The windows of some groups of scenes, thinned evenly to at most `max_windows`."""
        kept = [i for i, scene in enumerate(self.scenes) if scene.group in groups]
        new_index = {old: new for new, old in enumerate(kept)}
        windows = [
            position._replace(scene=new_index[position.scene])
            for position in self.windows
            if position.scene in new_index
        ]
        step = math.ceil(len(windows) / max_windows) if max_windows else 1
        subset = copy(self)
        subset.scenes = [self.scenes[i] for i in kept]
        subset.windows = windows[:: max(1, step)]
        return subset

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> Sample:
        return self.sample(index)

    def sample_name(self, index: int) -> str:
        """The name of a sample, without reading it."""
        position = self.windows[index]
        return _sample_name(self.scenes[position.scene], position.row, position.col)

    def resolve_index(self, index: int) -> tuple[int, int]:
        """The window and the orientation of sample `index`."""
        return index, 0

    def sample(self, index: int, orientation: int = 0) -> Sample:
        """Read a window in one of the eight orientations."""
        sample = _read_sample(self, self.windows[index], orientation)
        return sample if self.masking is None else self.masking.apply_fixed(sample)


def _read_sample(
    dataset: FixedWindowDataset | GridWindowDataset, position: WindowIndex, orientation: int
) -> Sample:
    scene = dataset.scenes[position.scene]
    window = Window(position.row, position.col, dataset.window, dataset.window)
    sample = _make_sample(scene, window, *scene.read(window), dataset.metadata)
    return _orient_sample(sample, orientation)


def _orient_sample(sample: Sample, orientation: int) -> Sample:
    if not orientation:
        return sample
    image, target = orient(sample.image, orientation), sample.target.rotate90_flip(orientation)
    return replace(sample, image=image, target=target)


def _make_sample(
    scene: Scene, window: Window, image: Image, target: Target, metadata: Sequence[str]
) -> Sample:
    name = _sample_name(scene, window.row, window.col)
    time, location = time_and_location(scene.raster, window, metadata)
    return Sample(image, target, name, scene.group, time, location)


def _sample_name(scene: Scene, row: int, col: int) -> str:
    return scene.name if scene.labels.image_level else f"{scene.name} ({row}, {col})"
