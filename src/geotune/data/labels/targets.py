"""What a window is learnt as: the kinds of `geotune.types.Target`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray
from rasterio.transform import Affine

from geotune.data.augment import turn
from geotune.data.raster.warp import Shape, warp_bilinear, warp_counts, warp_nearest
from geotune.types import IGNORE

if TYPE_CHECKING:  # reading and checking data needs no torch
    from torch import Tensor

NONE = np.zeros(0, dtype=np.float32)
ONCE = np.zeros(1, dtype=np.int64)
"""The first pixel, which stands for the image."""


@dataclass(frozen=True)
class PixelClasses:
    """A class for every pixel.

    Attributes:
        mask: `(H, W)` uint8 class indices, `IGNORE` where there is no label or no data.
    """

    mask: NDArray[np.uint8]

    @property
    def learnable(self) -> bool:
        """Whether any pixel has a label."""
        return bool(self.mask.min() < IGNORE)

    def shown(self, valid: NDArray[np.bool_]) -> Self:
        """With `IGNORE` where the image has no data."""
        return self if valid.all() else type(self)(np.where(valid, self.mask, np.uint8(IGNORE)))

    def turned(self, way: int) -> Self:
        """Laid one of the eight ways."""
        return type(self)(turn(self.mask, way))

    def placed(self, to: Affine, shape: Shape) -> Self:
        """Each pixel of the class of the nearest."""
        return type(self)(warp_nearest(self.mask, to, shape, outside=IGNORE))

    def labelled(self, valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Pixels with a label."""
        labelled: NDArray[np.bool_] = (self.mask != IGNORE) & valid
        return labelled

    def marks(self) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """The pixels of each class."""
        counts = np.bincount(self.mask.ravel(), minlength=IGNORE + 1)
        for index in np.flatnonzero(counts[:IGNORE]):
            yield int(index), np.flatnonzero(self.mask == index)

    def numbers(self) -> NDArray[np.float32]:
        """None: classes are no numbers."""
        return NONE

    @classmethod
    def stack(cls, targets: Sequence[Self]) -> Tensor:
        """Class indices `(B, H, W)`, int64."""
        import torch

        return torch.from_numpy(np.stack([target.mask for target in targets])).long()


@dataclass(frozen=True)
class PixelValues:
    """A number for every pixel.

    Attributes:
        values: `(H, W)` float32, NaN where there is no label or no data.
    """

    values: NDArray[np.float32]

    @property
    def learnable(self) -> bool:
        """Whether any pixel has a label."""
        return bool((~np.isnan(self.values)).any())

    def shown(self, valid: NDArray[np.bool_]) -> Self:
        """With NaN where the image has no data."""
        return replace(self, values=np.where(valid, self.values, np.float32(np.nan)))

    def turned(self, way: int) -> Self:
        """Laid one of the eight ways."""
        return replace(self, values=turn(self.values, way))

    def placed(self, to: Affine, shape: Shape) -> Self:
        """Blended from the nearest pixels."""
        return replace(self, values=warp_bilinear(self.values, to, shape))

    def labelled(self, valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Pixels with a label."""
        labelled: NDArray[np.bool_] = ~np.isnan(self.values) & valid
        return labelled

    def marks(self) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """The pixels with a label, as those of the one thing that is measured."""
        where = np.flatnonzero(~np.isnan(self.values))
        if where.size:
            yield 0, where

    def numbers(self) -> NDArray[np.float32]:
        """Those of the pixels with a label."""
        return self.values[~np.isnan(self.values)]

    @classmethod
    def stack(cls, targets: Sequence[Self]) -> Tensor:
        """Numbers `(B, H, W)`, float32."""
        import torch

        return torch.from_numpy(np.stack([target.values for target in targets]))


@dataclass(frozen=True)
class ObjectDensity(PixelValues):
    """Objects a pixel, of which the sum is their number.

    Attributes:
        places: `(H, W)` int64, how many objects stand in each pixel.
    """

    places: NDArray[np.int64]

    def shown(self, valid: NDArray[np.bool_]) -> Self:
        """Without what lies where the image has no data."""
        return replace(super().shown(valid), places=np.where(valid, self.places, 0))

    def turned(self, way: int) -> Self:
        """Laid one of the eight ways."""
        return replace(super().turned(way), places=turn(self.places, way))

    def placed(self, to: Affine, shape: Shape) -> Self:
        """As many objects on the same ground: where a pixel covers more of it, more of them."""
        moved = super().placed(to, shape)
        values = moved.values / np.float32(abs(to.determinant))
        return replace(moved, values=values, places=warp_counts(self.places, to, shape))

    def marks(self) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """The objects, each as often as it is there."""
        flat = self.places.ravel()
        where = np.flatnonzero(flat)
        if where.size:
            yield 0, np.repeat(where, flat[where])


@dataclass(frozen=True)
class _WholeImage:
    """What is said of an image as a whole: how it lies changes nothing.

    Attributes:
        seen: whether the image has any data.
    """

    seen: bool = field(default=True, kw_only=True)

    @property
    def learnable(self) -> bool:
        """Whether there is an image."""
        return self.seen

    def shown(self, valid: NDArray[np.bool_]) -> Self:
        """As it is, unless nothing of the image has data."""
        return self if valid.any() else replace(self, seen=False)

    def turned(self, way: int) -> Self:
        """As it is."""
        del way
        return self

    def placed(self, to: Affine, shape: Shape) -> Self:
        """As it is."""
        del to, shape
        return self

    def labelled(self, valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """All pixels with data."""
        return valid


@dataclass(frozen=True)
class ImageClass(_WholeImage):
    """A class for the image: its index."""

    index: int

    def marks(self) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """The image, once."""
        if self.seen:
            yield self.index, ONCE

    def numbers(self) -> NDArray[np.float32]:
        """None: classes are no numbers."""
        return NONE

    @classmethod
    def stack(cls, targets: Sequence[Self]) -> Tensor:
        """Class indices `(B,)`."""
        import torch

        return torch.tensor([target.index for target in targets])


@dataclass(frozen=True)
class ImageClasses(_WholeImage):
    """Any number of classes for the image.

    Attributes:
        present: of each class whether the image has it, `(K,)`.
    """

    present: NDArray[np.bool_]

    def marks(self) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """The image, once for each of its classes."""
        for index in np.flatnonzero(self.present & self.seen):
            yield int(index), ONCE

    def numbers(self) -> NDArray[np.float32]:
        """None: classes are no numbers."""
        return NONE

    @classmethod
    def stack(cls, targets: Sequence[Self]) -> Tensor:
        """Ones and zeros `(B, K)`, float32."""
        import torch

        return torch.from_numpy(np.stack([target.present for target in targets])).float()


@dataclass(frozen=True)
class ImageValue(_WholeImage):
    """A number for the image."""

    value: float

    def marks(self) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """The image, once."""
        if self.seen:
            yield 0, ONCE

    def numbers(self) -> NDArray[np.float32]:
        """The one."""
        return np.array([self.value] if self.seen else [], dtype=np.float32)

    @classmethod
    def stack(cls, targets: Sequence[Self]) -> Tensor:
        """Numbers `(B,)`, float32."""
        import torch

        return torch.tensor([target.value for target in targets], dtype=torch.float32)
