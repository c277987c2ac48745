"""What the rooms of geotune hand each other: samples, targets, taps, feature maps, bands."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from geotune.errors import GeotuneError

if TYPE_CHECKING:  # reading and checking data needs no torch, which takes seconds to import
    import torch
    from rasterio.transform import Affine
    from torch import Tensor

Times = tuple[tuple[float, float], ...]
"""Year and day of the year (1 to 366) of each date."""

COPY_COLUMNS = 32
"""Columns that are copied at a time."""

IGNORE = 255
"""The mask value that is never trained on and never counted."""


@dataclass(frozen=True)
class Tap:
    """One feature map that a backbone or an encoder offers.

    `stride` is in image pixels per feature pixel; a pyramid made from a patch of 14 has
    strides such as 3.5, so it is a float.
    """

    name: str
    channels: int
    stride: float


@dataclass(frozen=True)
class FeatureMaps:
    """Feature maps of one batch, fine to coarse or first block to last.

    Attributes:
        maps: one tensor `(B, C_i, H_i, W_i)` for each tap asked for.
        image_size: `(H, W)` of the padded image that the maps cover; a decoder's output is
            resized to it and then cropped to the images' own size.
        tokens: class and register tokens of the last block, `(B, N, C)`, where there are any.
    """

    maps: tuple[Tensor, ...]
    image_size: tuple[int, int]
    tokens: Tensor | None = None


@dataclass(frozen=True)
class Normalization:
    """Per-band affine map of raw pixel values: `(x - offset) / scale`."""

    bands: tuple[str, ...]
    offset: tuple[float, ...]
    scale: tuple[float, ...]

    def select(self, bands: Sequence[str]) -> Normalization:
        """The same map for `bands`, in their order. Raises `GeotuneError` for an unknown band."""
        missing = [band for band in bands if band not in self.bands]
        if missing:
            raise GeotuneError(
                f"no normalisation is known for band {', '.join(missing)}; "
                f"there is one for {', '.join(self.bands)}"
            )
        where = [self.bands.index(band) for band in bands]
        return Normalization(
            tuple(bands),
            tuple(self.offset[i] for i in where),
            tuple(self.scale[i] for i in where),
        )


@dataclass(frozen=True)
class BandStatistics:
    """Mean and standard deviation of each band over the valid pixels of a split, in raw units."""

    bands: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pixels: int


class Target(Protocol):
    """What a model is trained to predict for a window; `data/labels/targets.py` has the kinds."""

    @property
    def has_labels(self) -> bool:
        """Whether it holds anything to train on."""

    def masked(self, valid: NDArray[np.bool_]) -> Self:
        """Without the labels of pixels that are not `valid`, `(H, W)`."""

    def rotate90_flip(self, orientation: int) -> Self:
        """In one of the eight orientations of `raster.orientation.orient`, as the image is."""

    def warp(self, transform: Affine, shape: tuple[int, int]) -> Self:
        """In a window of `shape`; `transform` maps pixels (column, row) to those of that window.

        It may rotate by any angle, scale and translate; pixels beyond the edges have no label.
        """

    def label_mask(self, valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The labelled pixels, `(H, W)`, among those that are `valid`."""

    def class_positions(self) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """The index of each class in the window and its positions in the flattened window."""

    def regression_values(self) -> NDArray[np.float32]:
        """The label values by whose mean and deviation a task may standardise; empty for classes."""

    @classmethod
    def stack(cls, targets: Sequence[Self]) -> Any:
        """Stack into tensors, perhaps nested in lists and dicts, that slice by window."""


@dataclass(frozen=True)
class Sample:
    """One window of a scene, or one chip.

    Attributes:
        image: `(C, H, W)` float32, raw pixel values; what is not valid holds NaN. Of several dates
            `(C, T, H, W)`.
        target: what a model should make of it.
        name: scene and position, as people should read it: `durban (128, 256)`.
        group: what a split keeps together: the scene's or chip's group.
        time: of each date, where the model is given it.
        location: longitude and latitude of its centre in degrees, where the model is given it.
        features: what was kept of the backbone's features of it, `(h, w, C)` by name.
    """

    image: NDArray[np.float32]
    target: Target
    name: str
    group: str
    time: Times | None = None
    location: tuple[float, float] | None = None
    features: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Batch:
    """Samples stacked.

    Attributes:
        inputs: what the model is given, by name: `images` `(B, C, H, W)` with NaN where invalid,
            where it takes them `time` `(B, T, 2)` and `location` `(B, 2)`, and `features`
            `(B, h, w, C)` by name where they were kept.
        targets: what `Target.stack` makes of theirs, such as class indices `(B, H, W)`.
    """

    inputs: dict[str, Any]
    targets: Any
    names: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)

    @staticmethod
    def from_samples(samples: Sequence[Sample]) -> Batch:
        """Stack samples; all must have one size."""
        import torch

        images = _stack_images([s.image for s in samples])
        inputs: dict[str, Any] = {
            **model_inputs(images, [s.time for s in samples], [s.location for s in samples])
        }
        if samples[0].features:
            inputs["features"] = {
                name: torch.stack([s.features[name] for s in samples])
                for name in samples[0].features
            }
        return Batch(
            inputs,
            type(samples[0].target).stack([s.target for s in samples]),
            [s.name for s in samples],
            [s.group for s in samples],
        )

    def to(self, device: torch.device) -> Batch:
        """The batch with its tensors on `device`."""

        def moved(x: Tensor) -> Tensor:
            return x.to(device, non_blocking=True)

        return Batch(
            _map_tensors(self.inputs, moved),
            _map_tensors(self.targets, moved),
            self.names,
            self.groups,
        )

    def select(self, windows: slice) -> Batch:
        """Some of its windows: views, not copies."""
        return Batch(
            _map_tensors(self.inputs, lambda x: x[windows]),
            self.targets[windows],
            self.names[windows],
            self.groups[windows],
        )

    def __len__(self) -> int:
        return len(self.targets)


def _stack_images(images: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """As `np.stack`, but what lies on its side is copied in strips, which the processor's cache
    holds: twice as fast."""
    found = np.empty((len(images), *images[0].shape), dtype=np.float32)
    for into, image in zip(found, images, strict=True):
        upright = abs(image.strides[-1]) == image.itemsize
        width = image.shape[-1]
        step = width if upright else COPY_COLUMNS
        for start in range(0, width, step):
            into[..., start : start + step] = image[..., start : start + step]
    return found


def _map_tensors(nested: Any, change: Callable[[Tensor], Tensor]) -> Any:
    from torch import Tensor
    from torch.utils._pytree import tree_map_only

    return tree_map_only(Tensor, change, nested)


def model_inputs(
    images: NDArray[np.float32],
    times: Sequence[Times | None],
    locations: Sequence[tuple[float, float] | None],
) -> dict[str, Tensor]:
    """The model's inputs: images `(B, C, ..., H, W)`, and what is known of when and where."""
    import torch

    inputs = {"images": torch.from_numpy(images)}
    if all(time is not None for time in times):
        inputs["time"] = torch.tensor(times)
    if all(location is not None for location in locations):
        inputs["location"] = torch.tensor(locations)
    return inputs
