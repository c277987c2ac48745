"""Estimate the memory and disk space of a feature cache."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._guards import detect_fake_mode
from torch.utils._pytree import tree_map_only

from geotune.config import Recipe
from geotune.data.raster.orientation import NUM_ORIENTATIONS
from geotune.feature_cache.build_cache import check_backbone_frozen
from geotune.memory.tracker import MemoryTracker
from geotune.model import Model
from geotune.utils.feature_encoding import encode_features
from geotune.utils.precision import autocast


@dataclass(frozen=True)
class CacheEstimate:
    """The size of a feature cache.

    Attributes:
        features: of one window, `(1, h, w, C)` by name; without contents for fake models.
        populate_bytes: peak of live tensors, backbone included, while the features are computed
            for one micro-batch.
        window_bytes: size of one window in one orientation.
        train_bytes: size of all training windows in all orientations, without the validation
            windows; None if the number of windows depends on the files.
    """

    features: dict[str, Tensor]
    populate_bytes: int
    window_bytes: int
    train_bytes: int | None


def estimate_cache(
    model: Model, recipe: Recipe, inputs: Mapping[str, Any], micro_batch: int
) -> CacheEstimate:
    """Estimate the feature cache of a recipe.

    Args:
        model: on fake tensors, or a real one, whose features are then computed.
        recipe: with `train.cache`.
        inputs: of one window, by name; only shape and type are read.
        micro_batch: windows per micro-batch.

    Raises `GeotuneError` for a method whose backbone is not frozen.
    """
    train, data = recipe.train, recipe.data
    check_backbone_frozen(model.encoder, train.cache)
    mode: Any = detect_fake_mode(list(model.parameters())) or nullcontext()
    training = model.training
    model.eval()
    with mode, torch.no_grad(), autocast(torch.device("cpu"), train.precision):
        batch = tree_map_only(
            Tensor, lambda x: torch.zeros(micro_batch, *x.shape[1:], dtype=x.dtype), dict(inputs)
        )
        with MemoryTracker(model, None, batch) as tracker:
            encoded = encode_features(model.features(**batch), train.cache_precision)
        features = {name: tensor[:1] for name, tensor in encoded.items()}
    model.train(training)
    window_bytes = sum(tensor.nbytes for tensor in encoded.values()) // micro_batch
    orientations = NUM_ORIENTATIONS if data.augment.flips else 1
    total = None if data.samples is None else window_bytes * orientations * data.samples
    return CacheEstimate(features, tracker.peak.total, window_bytes, total)
