"""Compute the features that a store does not hold yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from geotune.feature_cache.store import FeatureStore

SHARD_BYTES = 64 * 2**20
"""Approximate size of a shard; an interruption loses at most this much work."""


def populate(
    store: FeatureStore,
    keys: Sequence[str],
    compute: Callable[[list[int]], dict[str, Tensor]],
    *,
    batch_size: int,
    on_start: Callable[[int, int], None],
    on_progress: Callable[[int, int], None],
) -> int:
    """Compute and store missing samples; returns their number.

    A shard is a whole number of batches, so a resumed build computes the same batches as an
    uninterrupted one.

    Args:
        store: opened; receives the missing samples.
        keys: of the samples; duplicates are computed once.
        compute: maps indices into `keys` to tensors `(len(indices), h, w, C)` by name.
        batch_size: samples per call of `compute`.
        on_start: receives the number of missing samples and their size in bytes before the first
            is stored; may raise.
        on_progress: receives computed and missing samples.
    """
    first = {key: index for index, key in reversed(list(enumerate(keys)))}
    missing = sorted(index for key, index in first.items() if key not in store)
    if not missing:
        return 0
    batches = [missing[i : i + batch_size] for i in range(0, len(missing), batch_size)]
    shard: list[dict[str, Tensor]] = []
    shard_keys: list[str] = []
    done, batches_per_shard = 0, 1
    on_progress(0, len(missing))
    for number, batch in enumerate(batches, 1):
        shard.append(compute(batch))
        shard_keys += [keys[index] for index in batch]
        if number == 1:
            sample_bytes = sum(tensor.nbytes for tensor in shard[0].values()) // len(batch)
            on_start(len(missing), sample_bytes * len(missing))
            batches_per_shard = max(1, SHARD_BYTES // (sample_bytes * batch_size))
        if number % batches_per_shard == 0 or number == len(batches):
            names = list(shard[0])
            store.add(shard_keys, {n: torch.cat([tensors[n] for tensors in shard]) for n in names})
            shard, shard_keys = [], []
        done += len(batch)
        on_progress(done, len(missing))
    return len(missing)
