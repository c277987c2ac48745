"""Principal components of features, and their storage as 8-bit integers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geotune.errors import GeotuneError
from geotune.methods.core.pca import RunningCovariance

SAMPLE_BYTES = 64 * 2**20
"""Of the features from which the range of 8-bit integers is chosen."""
RANGE_PERCENT = 0.1
"""Share of the sampled values below and above the range of 8-bit integers."""
INT8_LEVELS = 127
INT8_NODATA = -128

MEAN_TAG, COMPONENT_TAG, VARIANCE_TAG = "pca_mean", "pca_component", "pca_variance"


@dataclass(frozen=True)
class Projection:
    """Principal components: `y = components (x - mean)`.

    Attributes:
        mean: `(D,)`.
        components: `(K, D)`, orthonormal rows, by decreasing variance; the entry of each with the
            largest absolute value is positive.
        variance: `(K,)`, share of the features' variance.
    """

    mean: NDArray[np.float32]
    components: NDArray[np.float32]
    variance: NDArray[np.float32]

    def __call__(self, features: Tensor) -> Tensor:
        """`(B, D, h, w)` to `(B, K, h, w)`."""
        mean = torch.from_numpy(self.mean).to(features)
        components = torch.from_numpy(self.components).to(features)
        return torch.einsum("kd,bdhw->bkhw", components, features - mean[:, None, None])

    @property
    def tags(self) -> dict[str, str]:
        """Of the file: the mean, as JSON."""
        return {MEAN_TAG: _as_json(self.mean)}

    @property
    def band_tags(self) -> list[dict[str, str]]:
        """Of each band: its component and its share of the variance."""
        return [
            {COMPONENT_TAG: _as_json(component), VARIANCE_TAG: f"{variance:.6g}"}
            for component, variance in zip(self.components, self.variance, strict=True)
        ]

    @classmethod
    def from_tags(
        cls, tags: Mapping[str, str], band_tags: list[Mapping[str, str]], source: str
    ) -> Projection:
        """The projection of a file. Raises `GeotuneError` if it holds no components."""
        try:
            mean = np.array(json.loads(tags[MEAN_TAG]), dtype=np.float32)
            rows = [json.loads(each[COMPONENT_TAG]) for each in band_tags]
            variance = np.array([each[VARIANCE_TAG] for each in band_tags], dtype=np.float32)
            components = np.array(rows, dtype=np.float32)
            if components.shape != (len(variance), len(mean)):
                raise ValueError(f"components of shape {components.shape}")
        except (KeyError, ValueError, TypeError) as error:
            raise GeotuneError(
                f"{source}: holds no principal components ({type(error).__name__}: {error}); name "
                "a map that geotune embed --pca wrote, or a number of components",
                code="option-invalid",
            ) from error
        return cls(mean, components, variance)


@dataclass(frozen=True)
class Quantization:
    """Storage as 8-bit integers: `value = scale * stored + offset`, -128 for no data.

    Attributes:
        scale: `(K,)`.
        offset: `(K,)`.
    """

    scale: NDArray[np.float32]
    offset: NDArray[np.float32]

    def encode(self, values: NDArray[np.float32]) -> NDArray[np.int8]:
        """Values `(K, h, w)`, NaN without data; those beyond the range become its ends."""
        shape = (-1, 1, 1)
        levels = (values - self.offset.reshape(shape)) / self.scale.reshape(shape)
        levels = np.clip(np.rint(levels), -INT8_LEVELS, INT8_LEVELS)
        stored: NDArray[np.int8] = np.where(np.isnan(levels), INT8_NODATA, levels).astype(np.int8)
        return stored


class FeatureStatistics:
    """What components and ranges are computed from: features that arrive in batches.

    Args:
        batches: expected number of batches, among which the sample is divided.
    """

    def __init__(self, batches: int) -> None:
        self.batches = max(1, batches)
        self.covariance = RunningCovariance()
        self._sample: list[NDArray[np.float32]] = []

    def add(self, features: Tensor) -> None:
        """Add features `(n, D)`."""
        if not len(features):
            return
        self.covariance.add(features)
        count = max(1, SAMPLE_BYTES // (4 * features.shape[1] * self.batches))
        kept = np.linspace(0, len(features) - 1, min(count, len(features))).astype(int)
        self._sample.append(features[torch.from_numpy(kept)].numpy(force=True))

    def projection(self, count: int) -> Projection:
        """The first principal components. Raises `GeotuneError` if there are not so many."""
        possible = min(len(self.covariance.shift), max(1, self.covariance.count - 1))
        if not 1 <= count <= possible:
            raise GeotuneError(
                f"pca: found {count}, expected 1 to {possible} components: the features have "
                f"{len(self.covariance.shift)} dimensions, and {self.covariance.count} of them "
                "were read",
                code="option-invalid",
            )
        mean, axes, variances, total = self.covariance.principal_axes(count)
        largest = axes.abs().argmax(dim=1, keepdim=True)
        axes = axes * torch.sign(axes.gather(1, largest))
        share = variances.clamp(min=0) / total.clamp(min=1e-30)
        return Projection(*(x.float().numpy(force=True) for x in (mean, axes, share)))

    def quantization(self, projection: Projection | None = None) -> Quantization:
        """The range of each dimension, or of each component."""
        sample = np.concatenate(self._sample).astype(np.float64)
        if projection is not None:
            sample = (sample - projection.mean) @ projection.components.T
        low, high = np.percentile(sample, [RANGE_PERCENT, 100 - RANGE_PERCENT], axis=0)
        scale = np.maximum((high - low) / (2 * INT8_LEVELS), 1e-12)
        offset = (high + low) / 2
        return Quantization(scale.astype(np.float32), offset.astype(np.float32))


def _as_json(values: NDArray[np.float32]) -> str:
    return "[" + ", ".join(f"{value:.9g}" for value in values.tolist()) + "]"
