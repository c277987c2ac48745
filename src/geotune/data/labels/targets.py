"""Targets: what a model is trained to predict for a window (`geotune.types.Target`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray
from rasterio.transform import Affine

from geotune.data.raster.orientation import orient
from geotune.data.raster.warp import Shape, warp_bilinear, warp_counts, warp_nearest
from geotune.types import IGNORE

if TYPE_CHECKING:  # torch is slow to import, and not needed to read and check data
    from torch import Tensor

NO_VALUES = np.zeros(0, dtype=np.float32)
FIRST_PIXEL = np.zeros(1, dtype=np.int64)
"""The position of an image-level class."""


@dataclass(frozen=True)
class PixelClasses:
    """A class per pixel.

    Attributes:
        mask: `(H, W)` uint8 class indices, `IGNORE` where there is no label or no data.
    """

    mask: NDArray[np.uint8]

    @property
    def has_labels(self) -> bool:
        """Whether any pixel has a label."""
        return bool(self.mask.min() < IGNORE)

    def masked(self, valid: NDArray[np.bool_]) -> Self:
        """Set pixels that are not `valid` to `IGNORE`."""
        return self if valid.all() else type(self)(np.where(valid, self.mask, np.uint8(IGNORE)))

    def rotate90_flip(self, orientation: int) -> Self:
        """Bring the mask into one of the eight orientations."""
        return type(self)(orient(self.mask, orientation))

    def warp(self, transform: Affine, shape: Shape) -> Self:
        """Warp by nearest neighbour."""
        return type(self)(warp_nearest(self.mask, transform, shape, fill=IGNORE))

    def label_mask(self, valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The `valid` pixels with a label."""
        labelled: NDArray[np.bool_] = (self.mask != IGNORE) & valid
        return labelled

    def class_positions(self) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """The pixels of each class."""
        counts = np.bincount(self.mask.ravel(), minlength=IGNORE + 1)
        for index in np.flatnonzero(counts[:IGNORE]):
            yield int(index), np.flatnonzero(self.mask == index)

    def regression_values(self) -> NDArray[np.float32]:
        """None: classes are not standardised."""
        return NO_VALUES

    @classmethod
    def stack(cls, targets: Sequence[Self]) -> Tensor:
        """Class indices `(B, H, W)`, int64."""
        import torch

        return torch.from_numpy(np.stack([target.mask for target in targets])).long()


@dataclass(frozen=True)
class PixelValues:
    """A number per pixel.

    Attributes:
        values: `(H, W)` float32, NaN where there is no label or no data.
    """

    values: NDArray[np.float32]

    @property
    def has_labels(self) -> bool:
        """Whether any pixel has a label."""
        return bool((~np.isnan(self.values)).any())

    def masked(self, valid: NDArray[np.bool_]) -> Self:
        """Set pixels that are not `valid` to NaN."""
        return replace(self, values=np.where(valid, self.values, np.float32(np.nan)))

    def rotate90_flip(self, orientation: int) -> Self:
        """Bring the values into one of the eight orientations."""
        return replace(self, values=orient(self.values, orientation))

    def warp(self, transform: Affine, shape: Shape) -> Self:
        """Warp with bilinear interpolation."""
        return replace(self, values=warp_bilinear(self.values, transform, shape))

    def label_mask(self, valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The `valid` pixels with a label."""
        labelled: NDArray[np.bool_] = ~np.isnan(self.values) & valid
        return labelled

    def class_positions(self) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """The pixels with a label, as class 0."""
        positions = np.flatnonzero(~np.isnan(self.values))
        if positions.size:
            yield 0, positions

    def regression_values(self) -> NDArray[np.float32]:
        """The values of the pixels with a label."""
        return self.values[~np.isnan(self.values)]

    @classmethod
    def stack(cls, targets: Sequence[Self]) -> Tensor:
        """Values `(B, H, W)`, float32."""
        import torch

        return torch.from_numpy(np.stack([target.values for target in targets]))


@dataclass(frozen=True)
class ObjectDensity(PixelValues):
    """Objects per pixel; they sum to the number of objects.

    Attributes:
        counts: `(H, W)` int64, how many objects have their point in each pixel.
    """

    counts: NDArray[np.int64]

    def masked(self, valid: NDArray[np.bool_]) -> Self:
        """Remove density and objects from pixels that are not `valid`."""
        return replace(super().masked(valid), counts=np.where(valid, self.counts, 0))

    def rotate90_flip(self, orientation: int) -> Self:
        """Bring values and counts into one of the eight orientations."""
        turned = super().rotate90_flip(orientation)
        return replace(turned, counts=orient(self.counts, orientation))

    def warp(self, transform: Affine, shape: Shape) -> Self:
        """Warp, keeping the number of objects on the same ground."""
        warped = super().warp(transform, shape)
        values = warped.values / np.float32(abs(transform.determinant))
        return replace(warped, values=values, counts=warp_counts(self.counts, transform, shape))

    def class_positions(self) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """The pixel of each object, repeated if it holds several."""
        flat = self.counts.ravel()
        positions = np.flatnonzero(flat)
        if positions.size:
            yield 0, np.repeat(positions, flat[positions])


@dataclass(frozen=True)
class _ImageTarget:
    """An image-level label: flips, rotations and warps do not change it.

    Attributes:
        has_data: whether the image has any data.
    """

    has_data: bool = field(default=True, kw_only=True)

    @property
    def has_labels(self) -> bool:
        """Whether the image has data."""
        return self.has_data

    def masked(self, valid: NDArray[np.bool_]) -> Self:
        """The same label, unless no pixel is `valid`."""
        return self if valid.any() else replace(self, has_data=False)

    def rotate90_flip(self, orientation: int) -> Self:
        """The same label."""
        del orientation
        return self

    def warp(self, transform: Affine, shape: Shape) -> Self:
        """The same label."""
        del transform, shape
        return self

    def label_mask(self, valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """All `valid` pixels."""
        return valid


@dataclass(frozen=True)
class ImageClass(_ImageTarget):
    """The class of the image, by index."""

    index: int

    def class_positions(self) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """The class, once."""
        if self.has_data:
            yield self.index, FIRST_PIXEL

    def regression_values(self) -> NDArray[np.float32]:
        """None: classes are not standardised."""
        return NO_VALUES

    @classmethod
    def stack(cls, targets: Sequence[Self]) -> Tensor:
        """Class indices `(B,)`."""
        import torch

        return torch.tensor([target.index for target in targets])


@dataclass(frozen=True)
class ImageClasses(_ImageTarget):
    """Any number of classes per image (multi-label).

    Attributes:
        present: `(K,)`, whether the image has each class.
    """

    present: NDArray[np.bool_]

    def class_positions(self) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Each class of the image, once."""
        for index in np.flatnonzero(self.present & self.has_data):
            yield int(index), FIRST_PIXEL

    def regression_values(self) -> NDArray[np.float32]:
        """None: classes are not standardised."""
        return NO_VALUES

    @classmethod
    def stack(cls, targets: Sequence[Self]) -> Tensor:
        """Ones and zeros `(B, K)`, float32."""
        import torch

        return torch.from_numpy(np.stack([target.present for target in targets])).float()


@dataclass(frozen=True)
class ImageValue(_ImageTarget):
    """A number per image."""

    value: float

    def class_positions(self) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """The image, once, as class 0."""
        if self.has_data:
            yield 0, FIRST_PIXEL

    def regression_values(self) -> NDArray[np.float32]:
        """The value."""
        return np.array([self.value] if self.has_data else [], dtype=np.float32)

    @classmethod
    def stack(cls, targets: Sequence[Self]) -> Tensor:
        """Values `(B,)`, float32."""
        import torch

        return torch.tensor([target.value for target in targets], dtype=torch.float32)
