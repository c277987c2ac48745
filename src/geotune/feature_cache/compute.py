"""Compute what a store does not hold yet, with a model on a device."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from geotune.config import TrainOptions
from geotune.feature_cache.capacity import check_free_space, format_bytes
from geotune.feature_cache.populate import populate
from geotune.feature_cache.store import FeatureStore, folder_lock
from geotune.memory.oom import is_oom
from geotune.model import Model
from geotune.types import Batch, Sample
from geotune.utils.precision import autocast


def compute_missing(
    store: FeatureStore,
    keys: Sequence[str],
    model: Model,
    sample: Callable[[int], Sample],
    compute: Callable[[Batch], dict[str, Tensor]],
    train: TrainOptions,
    *,
    what: str,
    batch_size: int,
    device: torch.device,
    on_message: Callable[[str], None],
    on_progress: Callable[[int, int], None],
) -> tuple[int, int]:
    """Open a store, compute the missing samples and store them; leaves the model on the CPU.

    Args:
        store: not opened yet.
        keys: of the samples.
        model: used by `compute`; on the device meanwhile, in evaluation mode.
        sample: reads the sample of an index into `keys`.
        compute: maps a batch on the device to tensors `(B, h, w, C)` by name, on the CPU.
        train: options of the cache, and the precision of the computation.
        what: is computed, for messages.
        batch_size: samples per batch; halved if memory runs out.
        device: for the computation.
        on_message: receives messages for the user.
        on_progress: receives computed and missing samples.

    Returns the number of computed samples and their size in bytes. Raises `GeotuneError` if they
    exceed the limit or the free space.
    """
    size = 0

    def compute_samples(indices: Sequence[int]) -> dict[str, Tensor]:
        model.to(device)  # only once something has to be computed
        samples = [sample(index) for index in indices]
        try:
            with torch.no_grad(), autocast(device, train.precision):
                return compute(Batch.from_samples(samples).to(device))
        except (RuntimeError, MemoryError) as error:
            if len(indices) == 1 or not is_oom(error):
                raise
        half = len(indices) // 2  # outside of `except`: the error keeps the tensors alive
        halves = [compute_samples(indices[:half]), compute_samples(indices[half:])]
        return {name: torch.cat([tensors[name] for tensors in halves]) for name in halves[0]}

    def on_start(missing: int, needed: int) -> None:
        nonlocal size
        size = needed
        folder = train.cache_folder if store.folder else None
        check_free_space(folder, train.cache_limit, missing, needed)
        target = f"to {store.folder}" if store.folder else "in memory"
        on_message(f"computing {what} of {missing} windows {target}: {format_bytes(needed)}")

    training = model.training
    model.eval()
    try:
        with folder_lock(store.folder):
            for note in store.open(keys):
                on_message(f"note: {note}")
            computed = populate(
                store,
                keys,
                compute_samples,
                batch_size=batch_size,
                on_start=on_start,
                on_progress=on_progress,
            )
    finally:
        model.to("cpu").train(training)
    return computed, size
