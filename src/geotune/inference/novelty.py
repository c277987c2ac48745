"""How far the features of a window are from those of the training.

Features are the means of the encoder's maps over a window, standardised. Their distance is that of
Mahalanobis under a probabilistic PCA of the training windows (Tipping and Bishop 1999), whose small
variances are replaced by their mean, so that few windows suffice:

    d^2 = sum_i (c_i z)^2 / v_i  +  (|z|^2 - sum_i (c_i z)^2) / v        z = (x - mean) / scale

The share of validation windows that are nearer makes it readable.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from geotune.adapter_io import save_tensors
from geotune.errors import GeotuneError
from geotune.inference.pooled_table import pooled_mean
from geotune.types import FeatureMaps

MAX_BYTES = 150_000
"""Of the components, which are most of the file."""
MAX_COMPONENTS = 32
WINDOWS_PER_COMPONENT = 4
"""Training windows for each component at least."""
MIN_TRAIN, MIN_VAL = 16, 8
"""Windows below which there is no reference."""
QUANTILES = 256
_FIELDS = ("mean", "scale", "components", "variances", "residual", "quantiles")


@dataclass(frozen=True)
class NoveltyReference:
    """Statistics of the features of training windows, and distances of validation windows.

    Attributes:
        mean: `(D,)` of the features.
        scale: `(D,)`, their standard deviation.
        components: `(r, D)`, principal axes of the standardised features.
        variances: `(r,)` along them.
        residual: `(1,)`, mean variance along all others.
        quantiles: `(q,)`, distances of validation windows, ascending.
        windows: number of training and of validation windows.
    """

    mean: Tensor
    scale: Tensor
    components: Tensor
    variances: Tensor
    residual: Tensor
    quantiles: Tensor
    windows: tuple[int, int]

    @staticmethod
    def fit(train: Tensor, val: Tensor) -> NoveltyReference | None:
        """From features `(N, D)` and `(M, D)`; None if there are too few windows."""
        if len(train) < MIN_TRAIN or len(val) < MIN_VAL:
            return None
        x = train.double()
        mean, scale = x.mean(0), x.std(0)
        scale = scale.clamp(min=max(float(scale.mean()) * 1e-3, 1e-12))
        _, values, axes = torch.linalg.svd((x - mean) / scale, full_matrices=False)
        variances = values**2 / (len(x) - 1)
        affordable = MAX_BYTES // (4 * x.shape[1])
        count = max(1, min(MAX_COMPONENTS, len(x) // WINDOWS_PER_COMPONENT, affordable))
        count = min(count, len(variances) - 1) or 1
        rank = max(1, min(len(x) - 1, x.shape[1]) - count)
        residual = (variances[count:].sum() / rank).clamp(min=1e-6)
        draft = NoveltyReference(
            mean=mean.float(),
            scale=scale.float(),
            components=axes[:count].float().contiguous(),
            variances=variances[:count].clamp(min=float(residual)).float(),
            residual=residual[None].float(),
            quantiles=torch.zeros(2),
            windows=(len(train), len(val)),
        )
        shares = torch.linspace(0, 1, min(QUANTILES, len(val)), dtype=torch.float64)
        quantiles = torch.quantile(draft.distances(val).double().cpu(), shares).float()
        return replace(draft, quantiles=quantiles)

    def distances(self, features: Tensor) -> Tensor:
        """Distances `(B,)` of features `(B, D)`."""
        mean, scale, components, variances, residual = (
            x.to(features.device)
            for x in (self.mean, self.scale, self.components, self.variances, self.residual)
        )
        z = (features.float() - mean) / scale
        along = z @ components.T
        rest = (z.square().sum(1) - along.square().sum(1)).clamp(min=0)
        return ((along.square() / variances).sum(1) + rest / residual).sqrt()

    def percentile(self, distances: NDArray[np.float32]) -> NDArray[np.float32]:
        """The share of validation windows that are nearer, from 0 to 1."""
        quantiles = self.quantiles.numpy()
        shares = np.linspace(0, 1, len(quantiles))
        return np.interp(distances, quantiles, shares).astype(np.float32)

    @property
    def farthest(self) -> float:
        """The distance of the farthest validation window."""
        return float(self.quantiles[-1])

    def save(self, path: Path) -> None:
        """Write a `.safetensors` file, atomically."""
        tensors = {name: getattr(self, name) for name in _FIELDS}
        about = json.dumps({"format": 1, "windows": self.windows})
        save_tensors(path, tensors, {"novelty": about})  # one entry: their order would vary

    @staticmethod
    def load(path: Path) -> NoveltyReference:
        """Read a file of `save`. Raises `GeotuneError` if it is none."""
        try:
            with safe_open(path, framework="pt") as file:
                metadata: Mapping[str, str] = file.metadata()
                tensors = {name: file.get_tensor(name) for name in _FIELDS}
            train, val = json.loads(metadata["novelty"])["windows"]
            _check(tensors)
            return NoveltyReference(**tensors, windows=(int(train), int(val)))
        except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
            raise GeotuneError(
                f"{path}: cannot be read ({error}); copy it again, or remove it and run geotune "
                f"finish {path.parent}",
                code="adapter-invalid",
                file=path,
            ) from error


def _check(tensors: Mapping[str, Tensor]) -> None:
    """Raise `ValueError` for tensors that `NoveltyReference.fit` does not give."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    width, count = len(tensors["mean"]), len(tensors["variances"])
    expected = {"mean": (width,), "scale": (width,), "components": (count, width),
                "variances": (count,), "residual": (1,),
                "quantiles": (max(2, len(tensors["quantiles"])),)}  # fmt: skip
    for name, shape in expected.items():
        if shapes[name] != shape or tensors[name].dtype != torch.float32:
            raise ValueError(f"{name} has shape {shapes[name]}, expected {shape} as float32")
        if not tensors[name].isfinite().all():
            raise ValueError(f"{name} is not finite")
    quantiles = tensors["quantiles"]
    if (quantiles.diff() < 0).any() or not quantiles[-1] > 0:
        raise ValueError("quantiles do not ascend to a positive distance")
    if any((tensors[name] <= 0).any() for name in ("scale", "variances", "residual")):
        raise ValueError("scale, variances and residual are not positive")


def window_features(maps: FeatureMaps, images: Tensor, skip: int) -> Tensor:
    """The features `(B, D)` of windows: means of all maps but the first `skip`, the stem's."""
    return torch.cat([pooled_mean(x.float(), images) for x in maps.maps[skip:]], dim=1)
