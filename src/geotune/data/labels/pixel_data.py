"""Images without labels: what is known of a pixel is whether it has data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from rasterio.transform import Affine

from geotune.data.labels.targets import NO_VALUES
from geotune.data.raster.orientation import orient
from geotune.data.raster.warp import Shape, warp_nearest
from geotune.data.raster.windows import Window

if TYPE_CHECKING:  # torch is slow to import, and not needed to read and check data
    from torch import Tensor

NO_DATA, VISIBLE, HIDDEN = 0, 1, 2
"""States of a pixel: a masked reconstruction is trained on `HIDDEN` ones."""


@dataclass(frozen=True)
class PixelData:
    """The state of each pixel, the target of a masked reconstruction.

    Attributes:
        states: uint8 `(H, W)`, or `(C, H, W)` of each band once patches are hidden.
    """

    states: NDArray[np.uint8]

    @property
    def has_labels(self) -> bool:
        """Whether any pixel has data."""
        return bool(self.states.any())

    def masked(self, valid: NDArray[np.bool_]) -> Self:
        """Set pixels that are not `valid`, `(H, W)`, to `NO_DATA`."""
        return type(self)(np.where(valid, self.states, np.uint8(NO_DATA)))

    def rotate90_flip(self, orientation: int) -> Self:
        """Bring the states into one of the eight orientations."""
        return type(self)(orient(self.states, orientation))

    def warp(self, transform: Affine, shape: Shape) -> Self:
        """Warp states `(H, W)` by nearest neighbour."""
        return type(self)(warp_nearest(self.states, transform, shape, fill=NO_DATA))

    def label_mask(self, valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The `valid` pixels with data."""
        return self._any_band & valid

    def class_positions(self) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """The pixels with data, as class 0."""
        positions = np.flatnonzero(self._any_band)
        if positions.size:
            yield 0, positions

    def regression_values(self) -> NDArray[np.float32]:
        """None: there are no labels to standardise."""
        return NO_VALUES

    @classmethod
    def stack(cls, targets: Sequence[Self]) -> Tensor:
        """States `(B, C, H, W)`, uint8."""
        import torch

        return torch.from_numpy(np.stack([target.states for target in targets]))

    @property
    def _any_band(self) -> NDArray[np.bool_]:
        known = self.states != NO_DATA
        joined: NDArray[np.bool_] = known.any(axis=0) if known.ndim == 3 else known
        return joined


@dataclass(frozen=True)
class NoLabels:
    """The labels of a scene without labels: every pixel with data is one to learn from.

    Attributes:
        path: the image.
    """

    path: Path

    classes: ClassVar[tuple[str, ...]] = ("image",)
    label_unit: ClassVar[str] = "pixel"
    image_level: ClassVar[bool] = False
    overlaps: ClassVar[bool | None] = None
    notes: ClassVar[tuple[str, ...]] = ()

    def read(self, window: Window) -> PixelData:
        """All pixels as `VISIBLE`; the image knows which of them have data."""
        return PixelData(np.full((window.height, window.width), VISIBLE, dtype=np.uint8))

    def check(self, windows: Iterable[Window]) -> None:
        """Nothing to check."""
