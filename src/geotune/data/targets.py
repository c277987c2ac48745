"""What a window is learnt as: the kinds of `geotune.types.Target`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from geotune.data.augment import turn
from geotune.types import IGNORE

if TYPE_CHECKING:  # reading and checking data needs no torch
    from torch import Tensor


@dataclass(frozen=True)
class PixelClasses:
    """A class for every pixel.

    Attributes:
        mask: `(H, W)` int64 class indices, `IGNORE` where there is no label or no data.
    """

    mask: NDArray[np.int64]

    @property
    def learnable(self) -> bool:
        """Whether any pixel has a label."""
        return bool((self.mask != IGNORE).any())

    def shown(self, valid: NDArray[np.bool_]) -> Self:
        """With `IGNORE` where the image has no data."""
        return type(self)(np.where(valid, self.mask, IGNORE))

    def turned(self, way: int) -> Self:
        """Laid one of the eight ways."""
        return type(self)(turn(self.mask, way))

    def labelled(self, valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Pixels with a label."""
        labelled: NDArray[np.bool_] = (self.mask != IGNORE) & valid
        return labelled

    def marks(self) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """The pixels of each class."""
        counts = np.bincount(self.mask.ravel(), minlength=IGNORE + 1)
        for index in np.flatnonzero(counts[:IGNORE]):
            yield int(index), np.flatnonzero(self.mask == index)

    @classmethod
    def stack(cls, targets: Sequence[Self]) -> Tensor:
        """Class indices `(B, H, W)`."""
        import torch

        return torch.from_numpy(np.stack([target.mask for target in targets]))
