"""Data loaders that give every process its own part, in an order that never changes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader, Sampler

from geotune.data.dataset import GridWindows, TrainWindows
from geotune.types import Batch, Sample

Windows = TrainWindows | GridWindows


class RankSampler(Sampler[int]):
    """Indices `rank, rank + world, ...` of a data set.

    Args:
        length: of the data set.
        rank: this process among `world` of them.
        world: how many processes share the data set.
        even: give every process the same number, by starting again from the first; for training,
            where all processes must take every step together.
    """

    def __init__(self, length: int, rank: int, world: int, *, even: bool) -> None:
        self.indices = list(range(rank, length, world))
        if even and len(self.indices) < -(-length // world):
            self.indices.append(rank % length)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)


def loader(
    windows: Windows,
    batch_size: int,
    *,
    workers: int,
    rank: int = 0,
    world: int = 1,
    pin: bool = False,
) -> DataLoader[Sample]:
    """A loader of batches of `batch_size` for this process; the last one may be smaller."""
    training = isinstance(windows, TrainWindows)
    return DataLoader(
        windows,
        batch_size=batch_size,
        sampler=RankSampler(len(windows), rank, world, even=training),
        num_workers=workers,
        collate_fn=Batch.of,
        persistent_workers=workers > 0,
        pin_memory=pin and torch.cuda.is_available(),
    )
