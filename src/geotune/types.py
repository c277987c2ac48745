"""Types that packages exchange: samples, targets, taps, feature maps, band statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # data/ runs without torch, which takes seconds to import
    import torch
    from rasterio.transform import Affine
    from torch import Tensor

Times = tuple[tuple[float, float], ...]
"""Year and day of the year (1 to 366) of each date."""

COPY_COLUMNS = 32
"""Columns copied at a time by `_stack_images`."""

IGNORE = 255
"""Mask value of pixels that are excluded from losses and metrics."""


@dataclass(frozen=True)
class Tap:
    """A feature map that a backbone or an encoder provides: one entry of timm's `feature_info`.

    Backbones have one tap per block.

    Attributes:
        name: of the module.
        channels: number of channels (timm's `num_chs`).
        stride: image pixels per feature pixel (timm's `reduction`); a float, because a pyramid
            on patches of 14 pixels has strides such as 3.5.
    """

    name: str
    channels: int
    stride: float


@dataclass(frozen=True)
class FeatureMaps:
    """Feature maps of one batch, fine to coarse or first block to last.

    Attributes:
        maps: one tensor `(B, C_i, H_i, W_i)` per requested tap.
        image_size: `(H, W)` of the padded images; the decoder's output is resized to it and then
            cropped to the size of the images.
        tokens: class and register tokens of the last block, `(B, N, C)`; None without any.
    """

    maps: tuple[Tensor, ...]
    image_size: tuple[int, int]
    tokens: Tensor | None = None


@dataclass(frozen=True)
class Normalization:
    """Normalization of raw pixel values by band: `(x - offset) / scale`.

    Attributes:
        fill: raw value of missing pixels, by band; None for the mean of the pretraining data.
    """

    bands: tuple[str, ...]
    offset: tuple[float, ...]
    scale: tuple[float, ...]
    fill: tuple[float, ...] | None = None


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
        """Values whose mean and deviation a task may standardise by; empty for classes."""

    @classmethod
    def stack(cls, targets: Sequence[Self]) -> Any:
        """Stack into tensors, perhaps nested in lists and dicts, that slice by window."""


@dataclass(frozen=True)
class Sample:
    """One window of a scene, or one chip.

    Attributes:
        image: `(C, H, W)` float32, or `(C, T, H, W)` for several dates; raw values, NaN if invalid.
        target: the labels.
        name: for display, scene and position: `durban (128, 256)`.
        group: scenes or chips of one group stay in one split.
        time: of each date; None if the model does not take it.
        location: longitude and latitude of the centre in degrees; None if the model does not take
            it.
        features: cached backbone features, `(h, w, C)` by name.
        teacher: cached outputs and feature maps of a teacher, `(h, w, C)` by name.
        mask: `(h, w)`, the patches of a regular grid that a masked reconstruction hides; None for
            other tasks.
    """

    image: NDArray[np.float32]
    target: Target
    name: str
    group: str
    time: Times | None = None
    location: tuple[float, float] | None = None
    features: Mapping[str, Tensor] = field(default_factory=dict)
    teacher: Mapping[str, Tensor] = field(default_factory=dict)
    mask: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Batch:
    """Stacked samples.

    Attributes:
        inputs: keyword arguments of the model: `images` `(B, C, H, W)` with NaN if invalid; if the
            model takes them `time` `(B, T, 2)` and `location` `(B, 2)`; cached `features`
            `(B, h, w, C)` by name; hidden patches `mask` `(B, h, w)`.
        targets: result of `Target.stack`, such as class indices `(B, H, W)`.
        names: of the samples.
        groups: of the samples.
        teacher: cached outputs and feature maps of a teacher, `(B, h, w, C)` by name; no input of
            the model.
    """

    inputs: dict[str, Any]
    targets: Any
    names: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    teacher: dict[str, Tensor] = field(default_factory=dict)

    @staticmethod
    def from_samples(samples: Sequence[Sample]) -> Batch:
        """Stack samples of equal size."""
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
        masks = [sample.mask for sample in samples if sample.mask is not None]
        if masks:
            inputs["mask"] = torch.from_numpy(np.stack(masks))
        return Batch(
            inputs,
            type(samples[0].target).stack([s.target for s in samples]),
            [s.name for s in samples],
            [s.group for s in samples],
            {name: torch.stack([s.teacher[name] for s in samples]) for name in samples[0].teacher},
        )

    def to(self, device: torch.device) -> Batch:
        """Move the tensors to `device`."""

        def move(x: Tensor) -> Tensor:
            return x.to(device, non_blocking=True)

        return Batch(
            _map_tensors(self.inputs, move),
            _map_tensors(self.targets, move),
            self.names,
            self.groups,
            _map_tensors(self.teacher, move),
        )

    def select(self, windows: slice) -> Batch:
        """A slice of the windows, as views."""
        return Batch(
            _map_tensors(self.inputs, lambda x: x[windows]),
            self.targets[windows],
            self.names[windows],
            self.groups[windows],
            _map_tensors(self.teacher, lambda x: x[windows]),
        )

    def __len__(self) -> int:
        return len(self.targets)


def _stack_images(images: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """`np.stack`, twice as fast for transposed images: strips of columns fit in the CPU cache."""
    stacked = np.empty((len(images), *images[0].shape), dtype=np.float32)
    for target, image in zip(stacked, images, strict=True):
        contiguous = abs(image.strides[-1]) == image.itemsize
        width = image.shape[-1]
        step = width if contiguous else COPY_COLUMNS
        for start in range(0, width, step):
            target[..., start : start + step] = image[..., start : start + step]
    return stacked


def _map_tensors(nested: Any, function: Callable[[Tensor], Tensor]) -> Any:
    from torch import Tensor
    from torch.utils._pytree import tree_map_only

    return tree_map_only(Tensor, function, nested)


def model_inputs(
    images: NDArray[np.float32],
    times: Sequence[Times | None],
    locations: Sequence[tuple[float, float] | None],
) -> dict[str, Tensor]:
    """Keyword arguments of a model: `images` `(B, C, ..., H, W)`; `time`, `location` if known."""
    import torch

    inputs = {"images": torch.from_numpy(images)}
    if all(time is not None for time in times):
        inputs["time"] = torch.tensor(times)
    if all(location is not None for location in locations):
        inputs["location"] = torch.tensor(locations)
    return inputs
