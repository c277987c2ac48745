"""Window datasets: random windows for training, a grid for validation and testing."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from copy import copy
from dataclasses import replace
from typing import ClassVar, NamedTuple

import numpy as np

from geotune.config.data_options import AugmentOptions
from geotune.data.augment import drop_bands, jitter_brightness
from geotune.data.checks.scan import SceneScan
from geotune.data.raster.metadata import time_and_location
from geotune.data.raster.orientation import NUM_ORIENTATIONS, orient
from geotune.data.raster.source import Image, has_data
from geotune.data.raster.warp import rotated_crop
from geotune.data.raster.windows import Window, grid_windows
from geotune.data.sampling import WindowSampler
from geotune.data.scenes.scene import Scene
from geotune.types import Sample, Target

MAX_TRIES = 10
DEFAULT_AUGMENT = AugmentOptions()


class RandomWindowDataset:
    """Random windows of the training scenes, which vary as `augment` says.

    There is no end of them: `windows[epoch * len(windows) + i]` is sample `i` of an epoch. It is a
    function of `(seed, epoch, i)` alone: neither workers nor order nor what was read before change
    it.

    Args:
        scenes: the training scenes.
        scans: what each of them holds.
        window: side of the windows in pixels; smaller scenes are padded with NaN.
        samples: windows an epoch; by default what covers the scenes' area once.
        focus: share of windows drawn around a pixel of a rare class.
        augment: how the windows vary.
        brightness: how much the light varies, see `jitter_brightness`; 0 disables it.
        spread: standard deviation of each band, for what varies the light.
        seed: of the draws.
        metadata: what of time and location the samples carry.
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
    ) -> None:
        self.scenes = list(scenes)
        self.metadata = tuple(metadata)
        self.window = window
        self.augment = augment
        self.brightness = brightness
        self.spread = tuple(band_std)
        self.seed = seed
        self.sampler = WindowSampler(
            [scene.shape for scene in scenes],
            np.stack([scan.class_counts for scan in scans]),
            [scan.positions for scan in scans],
            rare_class_fraction,
        )
        area = sum(height * width for height, width in self.sampler.shapes)
        self.samples = samples or max(1, math.ceil(area / window**2))

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> Sample:
        if index < 0:
            raise IndexError(index)
        rng = np.random.default_rng([self.seed, *divmod(index, self.samples)])
        _, sample = self.draw(rng)
        varied = self.augment
        if varied.flips:
            sample = _turned(sample, int(rng.integers(NUM_ORIENTATIONS)))
        image, target = sample.image, sample.target
        if self.brightness:
            image = jitter_brightness(image, rng, self.brightness, self.spread)
        if varied.band_brightness:
            image = jitter_brightness(image, rng, varied.band_brightness, self.spread, by_band=True)
        if varied.band_dropout:
            image = drop_bands(image, rng, varied.band_dropout)
            target = target.masked(has_data(image))
        return replace(sample, image=image, target=target)

    def draw(self, rng: np.random.Generator) -> tuple[WindowIndex, Sample]:
        """A window that holds a label, and where it is."""
        for _ in range(MAX_TRIES):
            place, sample = self._window(rng, self.sampler.draw)
            if sample.target.has_labels:
                return place, sample
        return self._window(rng, self.sampler.draw_around_label)

    def _window(
        self,
        rng: np.random.Generator,
        draw: Callable[[np.random.Generator, int], tuple[int, Window]],
    ) -> tuple[WindowIndex, Sample]:
        """A window of the scene, or what `augment` makes of one: it may be turned and scaled."""
        if not self.augment.resamples:
            which, window = draw(rng, self.window)
            found = self.scenes[which].read(window)
        else:
            least, most = np.log(self.augment.scale)
            scale = float(np.exp(rng.uniform(least, most)))
            angle = float(rng.uniform(-self.augment.rotate, self.augment.rotate))
            which, window = draw(rng, max(1, round(self.window / scale)))
            scene = self.scenes[which]
            # of a scene that is smaller than the window, the scene's middle
            inner = window.clip(scene.shape) or window
            x, y = inner.col + inner.width / 2, inner.row + inner.height / 2
            view = rotated_crop(x, y, self.window, angle=angle, scale=scale)
            window, found = view.window, scene.read_crop(view)
        sample = _sample(self.scenes[which], window, *found, self.metadata)
        return WindowIndex(which, window.row, window.col), sample

    def __iter__(self) -> Iterator[Sample]:
        """The samples of the first epoch."""
        return (self[index] for index in range(len(self)))


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
        self.windows = [windows.draw(rng)[0] for rng in rngs]
        self._order = 0, np.arange(len(self.windows))

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> Sample:
        return self.sample(*self.resolve_index(index))

    def resolve_index(self, index: int) -> tuple[int, int]:
        """Which window sample `index` is, and which of the eight ways it lies."""
        if index < 0:
            raise IndexError(index)
        epoch, at = divmod(index, len(self))
        if epoch != self._order[0]:
            order = np.arange(len(self))
            if epoch:
                np.random.default_rng([self.seed, epoch]).shuffle(order)
            self._order = epoch, order
        way = np.random.default_rng([self.seed, epoch, at]).integers(self.num_orientations)
        return int(self._order[1][at]), int(way)

    def sample(self, index: int, orientation: int = 0) -> Sample:
        """A window, laid one of the eight ways."""
        return _turned(
            _at(self.scenes, self.windows[index], self.window, self.metadata), orientation
        )

    def __iter__(self) -> Iterator[Sample]:
        """The samples of the first epoch."""
        return (self[index] for index in range(len(self)))


class WindowIndex(NamedTuple):
    """Which window a sample is: index of its scene, and the row and column of its first pixel."""

    scene: int
    row: int
    col: int


class GridWindowDataset:
    """The windows of a regular grid that hold a labelled pixel: every such pixel exactly once.

    Args:
        scenes: the scenes.
        scans: what each of them holds, of a grid of `window` pixels.
        window: side of the windows in pixels; at the edges padded with NaN.
        metadata: what of time and location the samples carry.
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
    ) -> None:
        self.scenes = list(scenes)
        self.metadata = tuple(metadata)
        self.window = window
        self.windows = [
            WindowIndex(i, place.row, place.col)
            for i, (scene, scan) in enumerate(zip(scenes, scans, strict=True))
            for labelled in [set(scan.labelled_windows)]
            for place in grid_windows(scene.shape, window)
            if (place.row, place.col) in labelled
        ]

    def subset(self, groups: Collection[str], max_windows: int | None = None) -> GridWindowDataset:
        """The windows in scenes of some groups; with `most` so many of them, evenly spread."""
        index = {
            i: n
            for n, i in enumerate(i for i, scene in enumerate(self.scenes) if scene.group in groups)
        }
        places = [p._replace(scene=index[p.scene]) for p in self.windows if p.scene in index]
        fewer = copy(self)
        fewer.scenes = [self.scenes[i] for i in index]
        fewer.windows = places[
            :: max(1, math.ceil(len(places) / (max_windows or len(places) or 1)))
        ]
        return fewer

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> Sample:
        return self.sample(index)

    def sample_name(self, index: int) -> str:
        """The name that the sample has, without reading it."""
        place = self.windows[index]
        return _name(self.scenes[place.scene], place.row, place.col)

    def resolve_index(self, index: int) -> tuple[int, int]:
        """Which window sample `index` is, and how it lies: the one of that number, as it is."""
        return index, 0

    def sample(self, index: int, orientation: int = 0) -> Sample:
        """A window, laid one of the eight ways."""
        return _turned(
            _at(self.scenes, self.windows[index], self.window, self.metadata), orientation
        )


def _at(
    scenes: Sequence[Scene], place: WindowIndex, window: int, metadata: Sequence[str]
) -> Sample:
    scene = scenes[place.scene]
    there = Window(place.row, place.col, window, window)
    return _sample(scene, there, *scene.read(there), metadata)


def _turned(sample: Sample, way: int) -> Sample:
    if not way:
        return sample
    return replace(sample, image=orient(sample.image, way), target=sample.target.rotate90_flip(way))


def _sample(
    scene: Scene, window: Window, image: Image, target: Target, metadata: Sequence[str]
) -> Sample:
    name = _name(scene, window.row, window.col)
    known = time_and_location(scene.raster, window, metadata)
    return Sample(image, target, name, scene.group, *known)


def _name(scene: Scene, row: int, col: int) -> str:
    return scene.name if scene.labels.image_level else f"{scene.name} ({row}, {col})"
