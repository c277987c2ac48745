"""Outputs and feature maps of a teacher, computed once over the training windows of a student."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from geotune.config import TrainOptions
from geotune.config.distill_options import DistillOptions
from geotune.data.window_datasets import FixedWindowDataset
from geotune.feature_cache.cache_key import feature_dependencies, feature_set_name, sample_keys
from geotune.feature_cache.cached_dataset import CachedWindowDataset
from geotune.feature_cache.capacity import folder_bytes
from geotune.feature_cache.compute import compute_missing
from geotune.feature_cache.store import FeatureStore, prepare_folder
from geotune.methods.core.encoder import Encoder
from geotune.model import Model
from geotune.tasks.base import Task
from geotune.types import Batch, Sample, Tap
from geotune.utils.code_hash import hash_code
from geotune.utils.feature_encoding import encode_features

OUTPUTS = "outputs"
"""Name of the cached outputs; those of maps are `map_name` of their index."""


def map_name(index: int) -> str:
    """The name of map `index` of an encoder in a cache."""
    return f"map{index}"


def taught_maps(encoder: Encoder) -> dict[int, Tap]:
    """The deepest map of each stride that the decoder reads, by index; not those of a stem."""
    first = len(encoder.stem.taps) if encoder.stem else 0
    deepest = {tap.stride: i for i, tap in enumerate(encoder.taps) if i >= first}
    return {i: encoder.taps[i] for i in sorted(deepest.values())}


class Teacher:
    """A trained model that a student learns from.

    Args:
        run: the folder of its run.
        adapter: hash of its trained tensors.
        model: loaded; dropped once its cache is complete.
        task: of the model.
        options: what is learned from it.

    Attributes:
        maps: the maps that are learned, by index in its encoder.
        size_divisor: images are padded to a multiple of it.
    """

    def __init__(
        self, run: Path, adapter: str, model: Model, task: Task, options: DistillOptions
    ) -> None:
        self.run = run
        self.adapter = adapter
        self.task = task
        self.options = options
        self.maps = taught_maps(model.encoder) if options.features_weight else {}
        self.size_divisor = model.encoder.backbone.size_divisor
        self._model: Model | None = model

    @property
    def model(self) -> Model:
        """The model. Raises `RuntimeError` after `release`."""
        if self._model is None:
            raise RuntimeError("the teacher was released")
        return self._model

    def release(self) -> None:
        """Drop the model."""
        self._model = None

    def compute(self, batch: Batch, train: TrainOptions) -> dict[str, Tensor]:
        """Outputs at the decoder's own resolution, and maps, encoded as `(B, h, w, C)` by name.

        Outputs of whole images are `(B, 1, 1, K)`. They are kept in float32: they are small, and
        the difference of large logits matters.
        """
        model, encoded = self.model, {}
        maps, _ = model.encode(**batch.inputs)
        if self.options.outputs_weight:
            outputs: Tensor = model.decoder(maps)
            outputs = outputs[..., None, None] if outputs.ndim == 2 else outputs
            encoded = encode_features({OUTPUTS: outputs}, "fp32")
        return encoded | encode_features(
            {map_name(i): maps.maps[i] for i in self.maps}, train.cache_precision
        )


@dataclass(frozen=True)
class TeacherCache:
    """A teacher's outputs and maps for training windows.

    Attributes:
        windows: the training windows, each in `num_orientations`.
        keys: window `i` in orientation `k` has index `i * orientations + k`.
        store: what the teacher gave, by key.
        folder: of the store; None if it is in memory.
        computed: number of samples that were not cached before.
        bytes: size of the folder, or of what is in memory.
    """

    windows: FixedWindowDataset
    keys: list[str]
    store: FeatureStore
    folder: Path | None
    computed: int
    bytes: int

    @property
    def summary(self) -> dict[str, Any]:
        """The entry `distill.cache` of `run.json`."""
        return {
            "folder": None if self.folder is None else str(self.folder),
            "samples": len(set(self.keys)),
            "computed": self.computed,
            "bytes": self.bytes,
        }


class TaughtWindowDataset:
    """Training windows whose samples carry what a teacher gave for them.

    Args:
        windows: those of the cache, or the same with features of the student's backbone.
        cache: of the teacher.
    """

    def __init__(
        self, windows: FixedWindowDataset | CachedWindowDataset, cache: TeacherCache
    ) -> None:
        self.windows = windows
        self.infinite = windows.infinite
        self.cache = cache

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> Sample:
        fixed = self.cache.windows
        window, orientation = fixed.resolve_index(index)
        key = self.cache.keys[window * fixed.num_orientations + orientation]
        return replace(self.windows[index], teacher=self.cache.store.read(key))


def build_teacher_cache(
    teacher: Teacher,
    windows: FixedWindowDataset,
    train: TrainOptions,
    *,
    batch_size: int,
    device: torch.device,
    on_message: Callable[[str], None],
    on_progress: Callable[[int, int], None],
) -> TeacherCache:
    """Compute what the teacher gives for windows and is not cached yet, and release the teacher.

    Args:
        teacher: with its model.
        windows: of the student's training.
        train: options of the cache and the precision.
        batch_size: windows per forward pass; halved if memory runs out.
        device: for the computation.
        on_message: receives messages for the user.
        on_progress: receives computed and missing windows.

    Raises `GeotuneError` for a folder with other content, and if the limit or the free space is
    exceeded.
    """
    model = teacher.model
    seen = copy(windows)  # with the dates and locations that the teacher takes
    seen.metadata = model.encoder.backbone.metadata
    folder = None
    if teacher.options.cache == "disk":
        dependencies = _dependencies(teacher, train, device)
        name = feature_set_name(dependencies, f"teacher-{dependencies['backbone']['name']}")
        folder = prepare_folder(train.cache_folder, name, dependencies)
    keys, store = sample_keys(seen), FeatureStore(folder)
    computed, size = compute_missing(
        store,
        keys,
        model,
        lambda index: seen.sample(*divmod(index, seen.num_orientations)),
        lambda batch: teacher.compute(batch, train),
        train,
        what="the teacher's outputs",
        batch_size=batch_size,
        device=device,
        on_message=on_message,
        on_progress=on_progress,
    )
    teacher.release()
    size = folder_bytes(folder) if folder else size
    return TeacherCache(windows, keys, store, folder, computed, size)


def _dependencies(teacher: Teacher, train: TrainOptions, device: torch.device) -> dict[str, Any]:
    """Everything that a teacher's outputs and maps depend on, except the windows."""
    return {
        **feature_dependencies(teacher.model, train, device),
        "teacher": {
            "adapter": teacher.adapter,
            "code": hash_code("methods", "decoders"),
            "outputs": bool(teacher.options.outputs_weight),
            "maps": list(teacher.maps),
        },
    }
