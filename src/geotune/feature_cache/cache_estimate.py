"""What keeping features for a training will take: on the device, and on the disk."""

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
from geotune.data.augment import NUM_ORIENTATIONS
from geotune.feature_cache.build_cache import require_constant
from geotune.memory.tracker import Tracker
from geotune.model import Model
from geotune.utils.feature_encoding import encode


@dataclass(frozen=True)
class CacheEstimate:
    """What a cache of features will be.

    Attributes:
        features: of one window, `(1, h, w, C)` by name; of fake models shapes without contents.
        filling_bytes: of live tensors at the highest while they are computed, the backbone among
            them, as many windows at once as in training.
        window_bytes: that a window takes, laid one way.
        train_bytes: that all training windows take in all ways; None where the files decide how
            many they are. The validation windows come on top.
    """

    features: dict[str, Tensor]
    filling_bytes: int
    window_bytes: int
    train_bytes: int | None


def predict_kept(
    model: Model, recipe: Recipe, inputs: Mapping[str, Any], micro: int
) -> CacheEstimate:
    """What a cache will hold of a model's features.

    Args:
        model: on fake tensors; or real, then they are computed.
        recipe: with `train.cache`.
        inputs: of one window, by name; only shape and type are read.
        micro: windows that are computed at once.

    Raises `GeotuneError` for a method whose backbone changes.
    """
    train, data = recipe.train, recipe.data
    require_constant(model.encoder, train.cache)
    mixed = train.precision != "32-true"
    mode: Any = detect_fake_mode(list(model.parameters())) or nullcontext()
    training = model.training
    model.eval()
    with mode, torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        batch = tree_map_only(
            Tensor, lambda x: torch.zeros(micro, *x.shape[1:], dtype=x.dtype), dict(inputs)
        )
        with Tracker(model, None, batch) as tracker:
            kept = encode(model.features(**batch), train.cache_precision)
        features = {name: tensor[:1] for name, tensor in kept.items()}
    model.train(training)
    each = sum(tensor.nbytes for tensor in kept.values()) // micro
    ways = NUM_ORIENTATIONS if data.augment.flips else 1
    total = None if data.samples is None else each * ways * data.samples
    return CacheEstimate(features, tracker.peak.total, each, total)
