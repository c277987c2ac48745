"""Classifiers that are fitted to features, not trained: logistic regression and nearest neighbours.

Each cell of the finest map, or each image by the mean of its maps, is a vector x, standardised with
the mean and deviation of the sampled training vectors:

    logistic   W x + b
    knn        log of the share of each class among the k nearest training vectors (Euclidean)

The training vectors are sampled evenly over the classes, so `log_prior` gives back part of the
classes' frequencies. `training/fit_probe.py` fits the buffers and chooses C, k and that part on the
validation split.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from geotune.config.decoder_options import (
    KnnOptions,
    LogisticOptions,
    PooledKnnOptions,
    PooledLogisticOptions,
    ProbeOptions,
)
from geotune.decoders.base import resize, spatial_size
from geotune.decoders.pyramid import is_stem
from geotune.types import FeatureMaps, Tap

CHUNK = 1024
"""Vectors whose distances to all training vectors are in memory at once."""


class Probe(nn.Module):
    """A fitted classifier of vectors.

    Attributes:
        num_outputs: K, the classes.
        pooled: whether it predicts for images.
        width: D, the length of a vector.
    """

    mean: Tensor
    std: Tensor
    log_prior: Tensor

    def __init__(self, taps: Sequence[Tap], num_outputs: int, options: ProbeOptions) -> None:
        super().__init__()
        used = [i for i, tap in enumerate(taps) if not is_stem(tap)]
        if not used:
            raise ValueError("a probe needs at least one tap besides the stem")
        self.options = options
        self._used = used if options.levels == "all" else used[-1:]
        self._finest = min(self._used, key=lambda i: taps[i].stride)
        self.num_outputs = num_outputs
        self.pooled = options.level == "image"
        self.width = sum(taps[i].channels for i in self._used)
        self.register_buffer("mean", torch.zeros(self.width))
        self.register_buffer("std", torch.ones(self.width))
        self.register_buffer("log_prior", torch.zeros(num_outputs))

    def vectors(self, features: FeatureMaps) -> Tensor:
        """Maps `(B, C_i, h_i, w_i)` to vectors `(B, D, h, w)`, or `(B, D, 1, 1)` of images."""
        maps = [features.maps[i].float() for i in self._used]
        if self.pooled:
            return torch.cat([x.mean(dim=(2, 3), keepdim=True) for x in maps], dim=1)
        size = spatial_size(features.maps[self._finest])
        return torch.cat([resize(x, size) for x in maps], dim=1)

    def standardized(self, vectors: Tensor) -> Tensor:
        """Vectors `(B, D, h, w)` as `(B h w, D)` in units of the training's deviation."""
        rows = vectors.movedim(1, -1).flatten(0, -2)
        return (rows - self.mean) / self.std

    @abstractmethod
    def scores(self, rows: Tensor) -> Tensor:
        """Logits `(n, K)` of standardised vectors `(n, D)`, as if all classes were as frequent."""

    def forward(self, features: FeatureMaps) -> Tensor:
        """Maps `(B, C_i, h_i, w_i)` to logits `(B, K, h, w)`, or `(B, K)` of images."""
        vectors = self.vectors(features)
        rows = self.scores(self.standardized(vectors)) + self.log_prior
        logits = rows.reshape(len(vectors), *vectors.shape[2:], -1).movedim(-1, 1)
        return logits.flatten(1) if self.pooled else logits


class LogisticProbe(Probe):
    """Multinomial logistic regression."""

    weight: Tensor
    bias: Tensor

    def __init__(
        self,
        taps: Sequence[Tap],
        num_outputs: int,
        options: LogisticOptions | PooledLogisticOptions,
    ) -> None:
        super().__init__(taps, num_outputs, options)
        self.register_buffer("weight", torch.zeros(num_outputs, self.width))
        self.register_buffer("bias", torch.zeros(num_outputs))

    def scores(self, rows: Tensor) -> Tensor:
        """See `Probe.scores`."""
        return rows @ self.weight.T + self.bias


class KnnProbe(Probe):
    """Votes of the nearest training vectors, each counting the same."""

    samples: Tensor
    labels: Tensor

    def __init__(
        self, taps: Sequence[Tap], num_outputs: int, options: KnnOptions | PooledKnnOptions
    ) -> None:
        super().__init__(taps, num_outputs, options)
        self.neighbours = options.neighbours or 1
        self.register_buffer("samples", torch.zeros(options.max_samples, self.width))
        self.register_buffer("labels", torch.zeros(options.max_samples, dtype=torch.long))

    def nearest(self, rows: Tensor, count: int) -> Tensor:
        """Classes `(n, count)` of the nearest training vectors, nearest first."""
        count = min(count, len(self.samples))
        found = [
            torch.cdist(rows[i : i + CHUNK], self.samples).topk(count, largest=False)[1]
            for i in range(0, len(rows), CHUNK)
        ]
        return self.labels[torch.cat(found)]

    def scores_of(self, nearest: Tensor) -> Tensor:
        """Logits `(n, K)` from the classes `(n, k)` of the neighbours; one vote for each class."""
        classes = torch.arange(self.num_outputs, device=nearest.device)
        votes = (nearest[:, :, None] == classes).sum(dim=1)
        return torch.log((votes + 1) / (nearest.shape[1] + self.num_outputs))

    def scores(self, rows: Tensor) -> Tensor:
        """See `Probe.scores`."""
        return self.scores_of(self.nearest(rows, self.neighbours))
