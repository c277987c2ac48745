"""Computing the features of a training's windows once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from geotune.backbones.base import fingerprint
from geotune.config import TrainOptions
from geotune.data.datamodule import DataModule
from geotune.data.window_datasets import FixedWindowDataset, GridWindowDataset
from geotune.errors import GeotuneError
from geotune.feature_cache.cache_key import feature_set_name, file_stamp, sample_key, scene_key
from geotune.feature_cache.cached_dataset import CachedWindowDataset
from geotune.feature_cache.capacity import check_free_space, folder_bytes, format_bytes
from geotune.feature_cache.populate import populate
from geotune.feature_cache.store import FeatureStore, exclusive_folder, prepare_folder
from geotune.memory.oom import is_oom
from geotune.methods.core.encoder import Encoder
from geotune.model import Model
from geotune.types import Batch
from geotune.utils.autocast import autocast
from geotune.utils.feature_encoding import encode_features

FORMAT_VERSION = 1
"""Of what is kept; another one makes other sets."""


@dataclass(frozen=True)
class FeatureCache:
    """Windows to train on from a cache.

    Attributes:
        folder: where the features are; None: in memory.
        samples: how many windows, in how many ways, there are in all.
        computed: how many of them were not there before.
        bytes: what the cache takes on the disk, or the features in memory.
    """

    train: CachedWindowDataset
    val: CachedWindowDataset
    folder: Path | None
    samples: int
    computed: int
    bytes: int

    @property
    def summary(self) -> dict[str, Any]:
        """For people and for `run.json`."""
        return {
            "folder": None if self.folder is None else str(self.folder),
            "samples": self.samples,
            "computed": self.computed,
            "bytes": self.bytes,
        }


def check_backbone_frozen(encoder: Encoder, cache: str) -> None:
    """Raise `GeotuneError` where the features of the backbone change while it trains."""
    if not encoder.backbone_frozen:
        method = encoder.method
        raise GeotuneError(
            f"train.cache: found {cache}, but method.kind "
            f"{method.name if method else 'of your own'} changes the backbone, so that its "
            "features cannot be kept; use train.cache=none, or a method beside the backbone: "
            "frozen, sidetune, lst, e3va, dtl without feedback_from, est"
        )


def cache_notes(data: DataModule) -> list[str]:
    """What a user should know of training from a cache."""
    varied = ", each in all eight ways to lay it" if data.train.augment.flips else ""
    notes = [f"train.cache: the training windows are the same {len(data.train)} in every epoch"]
    notes[0] += varied
    if data.train.brightness:
        notes.append(
            f"train.cache: data.brightness {data.train.brightness:g} is left out, for the kept "
            "features would not vary with the light"
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
    progress: Callable[[int, int], None],
) -> FeatureCache:
    """The windows to train on with their features; what is not kept yet is computed on `device`.

    Calibrates the model, and leaves it on the CPU. `on_message` gets a line at a time for the user,
    `progress` windows done and to be computed. Raises `GeotuneError` for a method whose backbone
    changes, a folder that is not geotune's, and where the features take more than there is room.
    """
    check_backbone_frozen(model.encoder, train.cache)
    fixed = FixedWindowDataset(data.train)
    model.calibrate_on(fixed)
    about = feature_dependencies(model, train, device)
    folder = None
    if train.cache == "disk":
        name = feature_set_name(about, about["backbone"]["name"])
        folder = prepare_folder(train.cache_folder, name, about)
    names, val_names = sample_keys(fixed), sample_keys(data.val)
    wanted = [*names, *val_names]
    store = FeatureStore(folder)
    size = 0

    def compute(indices: Sequence[int]) -> dict[str, Tensor]:
        model.to(device)  # not before it is needed
        samples = [
            fixed.sample(*divmod(i, fixed.num_orientations))
            if i < len(names)
            else data.val.sample(i - len(names))
            for i in indices
        ]
        try:
            with torch.no_grad(), autocast(device, train.precision):
                features = model.features(**Batch.from_samples(samples).to(device).inputs)
            return encode_features(features, train.cache_precision)
        except (RuntimeError, MemoryError) as error:
            if len(indices) == 1 or not is_oom(error):
                raise
        half = len(indices) // 2  # not from the error, which holds on to all that was there
        parts = [compute(indices[:half]), compute(indices[half:])]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def begin(missing: int, needed: int) -> None:
        nonlocal size
        size = needed
        check_free_space(train.cache_folder if folder else None, train.cache_limit, missing, needed)
        where = f"to {folder}" if folder else "into memory"
        on_message(f"computing the features of {missing} windows {where}: {format_bytes(needed)}")

    training = model.training
    model.eval()
    try:
        with exclusive_folder(folder):
            for note in store.open(wanted):
                on_message(f"note: {note}")
            computed = populate(
                store, wanted, compute, batch_size=batch_size, on_start=begin, progress=progress
            )
    finally:
        model.to("cpu").train(training)
    return FeatureCache(
        CachedWindowDataset(fixed, names, store),
        CachedWindowDataset(data.val, val_names, store),
        folder,
        len(set(wanted)),
        computed,
        folder_bytes(folder) if folder else size,
    )


def feature_dependencies(model: Model, train: TrainOptions, device: torch.device) -> dict[str, Any]:
    """All that the features of a window depend on, but for the window."""
    backbone, reader = model.encoder.backbone, model.encoder.reader
    method = model.encoder.method
    reduction = reader.compression_module()
    half = autocast(device, train.precision).fast_dtype
    asked = backbone.spec.model_dump()
    own_code = backbone.spec.model.rpartition(":")[0]
    return {
        "format": FORMAT_VERSION,
        "backbone": {
            # weights stand for themselves, by their fingerprint
            **{k: v for k, v in asked.items() if k not in ("weights", "pretrained")},
            "fingerprint": backbone.fingerprint,
            "code": file_stamp(Path(own_code)) if backbone.name.startswith("python/") else None,
        },
        "frozen_precision": method.frozen_precision if method else "fp32",
        "computed_in": str(torch.float32 if train.precision == "32-true" else half),
        "normalization": {
            "offset": model.offset.tolist(),
            "scale": model.scale.tolist(),
            "fill": model.fill.tolist(),
        },
        "taps": {str(index): list(reader.required_inputs(index)) for index in reader.out_indices},
        "reduction": None if reduction is None else fingerprint(reduction),
        "held": train.cache_precision,
    }


def sample_keys(windows: FixedWindowDataset | GridWindowDataset) -> list[str]:
    """Of each window in each of its ways: a name that changes with the file."""
    sources = []
    for scene in windows.scenes:
        raster = scene.raster
        where: list[Any] = [
            (p.path.name, p.index, p.nodata, p.has_mask, p.grid) for p in raster.band_files
        ]
        if raster.area is not None:  # windows see nothing beyond it
            where.append(raster.area)
        files = list(raster.files)
        if raster.quality is not None and raster.quality.options.mask_image:
            files.append(raster.quality.path)
            where.append(raster.quality.options.model_dump(exclude={"pattern"}))
        sources.append(scene_key([file_stamp(path) for path in files], where))
    side = windows.window
    return [
        sample_key(sources[place.scene], (place.row, place.col, side, side), way)
        for place in windows.windows
        for way in range(windows.num_orientations)
    ]
