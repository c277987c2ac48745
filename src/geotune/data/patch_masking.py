"""Hide patches of windows from the model (masked image modelling: SimMIM, arXiv 2111.09886)."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace

import numpy as np

from geotune.data.labels.pixel_data import HIDDEN, NO_DATA, VISIBLE, PixelData
from geotune.types import Sample


@dataclass(frozen=True)
class PatchMasking:
    """Hides patches of a regular grid.

    Attributes:
        ratio: share of the patches with data that are hidden, in (0, 1).
        patch: side of the patches in pixels, a divisor of the windows' side.
    """

    ratio: float
    patch: int

    def apply(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """The sample with random hidden patches as its `mask`, and pixel states of each band.

        At least one patch with data is hidden, and one is not if there are two. Without data
        nothing is hidden.
        """
        assert isinstance(sample.target, PixelData)
        height, width = sample.image.shape[-2:]
        rows, cols = height // self.patch, width // self.patch
        bands = sample.image.reshape(-1, height, width)  # dates are further bands
        known = (sample.target.states != NO_DATA) & ~np.isnan(bands)
        patches = known.any(axis=0).reshape(rows, self.patch, cols, self.patch).any(axis=(1, 3))
        usable = np.flatnonzero(patches)
        count = min(max(1, round(self.ratio * usable.size)), max(1, usable.size - 1))
        mask = np.zeros((rows, cols), dtype=np.bool_)
        mask.flat[rng.permutation(usable)[:count]] = True
        hidden = mask.repeat(self.patch, axis=0).repeat(self.patch, axis=1)
        states = np.where(known, np.where(hidden, HIDDEN, VISIBLE), NO_DATA).astype(np.uint8)
        return replace(sample, target=PixelData(states), mask=mask)

    def apply_fixed(self, sample: Sample) -> Sample:
        """The same, with patches that depend on the sample's name only, for validation."""
        return self.apply(sample, np.random.default_rng(zlib.crc32(sample.name.encode())))
