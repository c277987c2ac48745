"""Data loaders that give every process its own part, in an order that never changes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader, Sampler

from geotune.data.window_datasets import FixedWindowDataset, GridWindowDataset, RandomWindowDataset
from geotune.feature_cache.cached_dataset import CachedWindowDataset
from geotune.types import Batch, Sample

WindowDataset = RandomWindowDataset | FixedWindowDataset | GridWindowDataset | CachedWindowDataset


class RankSampler(Sampler[int]):
    """Indices `rank, rank + world, ...` of a data set.

    Args:
        length: of the data set.
        rank: this process among `world` of them.
        world: how many processes share the data set.
    """

    def __init__(self, length: int, rank: int, world: int) -> None:
        self.indices = list(range(rank, length, world))

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)


class EpochSampler(RankSampler):
    """The same for training windows, of which there is no end: each epoch draws other ones.

    All processes take every step together, so each gets the same number: where `world` does not
    divide `length`, the first ones are drawn again.
    """

    def __init__(self, length: int, rank: int, world: int) -> None:
        super().__init__(length, rank, world)
        if len(self.indices) < -(-length // world):
            self.indices.append(rank % length)
        self.length = length
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Draw the windows of `epoch` from now on; Lightning calls it."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        return (self.epoch * self.length + index for index in self.indices)


def make_loader(
    windows: WindowDataset,
    batch_size: int,
    *,
    workers: int,
    rank: int = 0,
    world: int = 1,
    pin: bool = False,
) -> DataLoader[Sample]:
    """A loader of batches of `batch_size` for this process; the last one may be smaller."""
    order = EpochSampler if windows.infinite else RankSampler
    return DataLoader(
        windows,  # type: ignore[arg-type]  # the data room knows no torch
        batch_size=batch_size,
        sampler=order(len(windows), rank, world),
        num_workers=workers,
        collate_fn=Batch.from_samples,
        persistent_workers=workers > 0,
        pin_memory=pin and torch.cuda.is_available(),
    )
