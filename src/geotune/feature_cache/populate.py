"""Computing what of some samples is not kept yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from geotune.feature_cache.store import FeatureStore

SHARD_BYTES = 64 * 2**20
"""About so much is computed before it is written, and so much is lost when it is interrupted."""


def populate(
    store: FeatureStore,
    samples: Sequence[str],
    compute: Callable[[list[int]], dict[str, Tensor]],
    *,
    batch_size: int,
    on_start: Callable[[int, int], None],
    progress: Callable[[int, int], None],
) -> int:
    """Compute and keep what is missing. Returns how many samples that were.

    A shard is a whole number of batches, so that a build that was interrupted goes on with the
    very batches that it would have had.

    Args:
        store: opened; gets the missing samples.
        samples: names; one that stands there twice is computed once.
        compute: from indices into `samples` to tensors `(indices, h, w, C)`.
        batch_size: how many are computed at a time.
        begin: told the number of missing samples and the bytes that they will take, before any is
            kept; may raise.
        progress: told samples done and missing in all.
    """
    first = {name: index for index, name in reversed(list(enumerate(samples)))}
    missing = sorted(index for name, index in first.items() if name not in store)
    if not missing:
        return 0
    batches = [missing[i : i + batch_size] for i in range(0, len(missing), batch_size)]
    found: list[dict[str, Tensor]] = []
    names: list[str] = []
    done, together = 0, 1
    for number, batch in enumerate(batches, 1):
        found.append(compute(batch))
        names += [samples[index] for index in batch]
        if number == 1:
            each = sum(tensor.nbytes for tensor in found[0].values()) // len(batch)
            on_start(len(missing), each * len(missing))
            together = max(1, SHARD_BYTES // (each * batch_size))
        if number % together == 0 or number == len(batches):
            store.add(names, {name: torch.cat([part[name] for part in found]) for name in found[0]})
            found, names = [], []
        done += len(batch)
        progress(done, len(missing))
    return len(missing)
