"""Build a feature cache: run the frozen backbone once over all windows of a training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from geotune.config import TrainOptions
from geotune.data.datamodule import DataModule
from geotune.data.window_datasets import FixedWindowDataset
from geotune.errors import GeotuneError
from geotune.feature_cache.cache_key import feature_dependencies, feature_set_name, sample_keys
from geotune.feature_cache.cached_dataset import CachedWindowDataset
from geotune.feature_cache.capacity import folder_bytes
from geotune.feature_cache.compute import compute_missing
from geotune.feature_cache.store import FeatureStore, prepare_folder
from geotune.methods.core.encoder import Encoder
from geotune.model import Model
from geotune.types import Batch, Sample
from geotune.utils.feature_encoding import encode_features


@dataclass(frozen=True)
class FeatureCache:
    """Datasets that read cached features.

    Attributes:
        folder: of the features; None if they are in memory.
        samples: number of windows, each orientation counted.
        computed: number of samples that were not cached before.
        bytes: size of the folder, or of the features in memory.
    """

    train: CachedWindowDataset
    val: CachedWindowDataset
    folder: Path | None
    samples: int
    computed: int
    bytes: int

    @property
    def summary(self) -> dict[str, Any]:
        """The entry `cache` of `run.json`."""
        return {
            "folder": None if self.folder is None else str(self.folder),
            "samples": self.samples,
            "computed": self.computed,
            "bytes": self.bytes,
        }


def check_backbone_frozen(encoder: Encoder, cache: str) -> None:
    """Raise `GeotuneError` for a method that changes the backbone's features during training."""
    if not encoder.backbone_frozen:
        method = encoder.method
        raise GeotuneError(
            f"train.cache: found {cache}, but method.kind {method.name if method else 'custom'} "
            "changes the backbone, so its features cannot be cached; use train.cache=none or a "
            "method with a frozen backbone: frozen, sidetune, lst, e3va, unipt, losa, dtl without "
            "feedback_from, est",
            code="cache-not-possible",
            key="train.cache",
        )


def cache_notes(data: DataModule, key: str = "train.cache") -> list[str]:
    """How training on fixed windows differs, for the user; `key` of the recipe asks for them."""
    orientations = ", each in all eight orientations" if data.train.augment.flips else ""
    notes = [f"{key}: every epoch uses the same {len(data.train)} training windows{orientations}"]
    if data.train.brightness:
        notes.append(
            f"{key}: data.brightness {data.train.brightness:g} is ignored, because cached "
            "features cannot vary with brightness"
        )
    return notes


def build_cache(
    model: Model,
    data: DataModule,
    train: TrainOptions,
    *,
    batch_size: int,
    device: torch.device,
    on_message: Callable[[str], None],
    on_progress: Callable[[int, int], None],
) -> FeatureCache:
    """Compute the features that are not cached yet, and return datasets that read them.

    Calibrates the model, and leaves it on the CPU.

    Args:
        model: whose features are cached.
        data: training and validation windows.
        train: options of the cache and the precision.
        batch_size: windows per forward pass; halved if memory runs out.
        device: for the computation.
        on_message: receives messages for the user.
        on_progress: receives computed and missing windows.

    Raises `GeotuneError` for a method that changes the backbone, a folder with other content, and
    features that exceed the limit or the free space.
    """
    check_backbone_frozen(model.encoder, train.cache)
    fixed = FixedWindowDataset(data.train)
    model.calibrate_on(fixed)
    dependencies = feature_dependencies(model, train, device)
    folder = None
    if train.cache == "disk":
        name = feature_set_name(dependencies, dependencies["backbone"]["name"])
        folder = prepare_folder(train.cache_folder, name, dependencies)
    train_keys, val_keys = sample_keys(fixed), sample_keys(data.val)
    keys = [*train_keys, *val_keys]
    store = FeatureStore(folder)

    def sample(index: int) -> Sample:
        if index < len(train_keys):
            return fixed.sample(*divmod(index, fixed.num_orientations))
        return data.val.sample(index - len(train_keys))

    def compute(batch: Batch) -> dict[str, Tensor]:
        return encode_features(model.features(**batch.inputs), train.cache_precision)

    computed, size = compute_missing(
        store,
        keys,
        model,
        sample,
        compute,
        train,
        what="the features",
        batch_size=batch_size,
        device=device,
        on_message=on_message,
        on_progress=on_progress,
    )
    return FeatureCache(
        CachedWindowDataset(fixed, train_keys, store),
        CachedWindowDataset(data.val, val_keys, store),
        folder,
        len(set(keys)),
        computed,
        folder_bytes(folder) if folder else size,
    )
