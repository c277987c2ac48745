"""Data loaders that split a dataset among processes in a fixed order."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader, Sampler

from geotune.data.window_datasets import FixedWindowDataset, GridWindowDataset, RandomWindowDataset
from geotune.feature_cache.cached_dataset import CachedWindowDataset
from geotune.feature_cache.teacher_cache import TaughtWindowDataset
from geotune.types import Batch, Sample

WindowDataset = (
    RandomWindowDataset
    | FixedWindowDataset
    | GridWindowDataset
    | CachedWindowDataset
    | TaughtWindowDataset
)


class RankSampler(Sampler[int]):
    """Indices `rank, rank + world, ...` of a dataset.

    Args:
        length: of the dataset.
        rank: of this process.
        world: number of processes.
    """

    def __init__(self, length: int, rank: int, world: int) -> None:
        self.indices = list(range(rank, length, world))

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)


class EpochSampler(RankSampler):
    """Like `RankSampler` for an infinite dataset: each epoch draws new windows.

    Every process gets the same number of windows, because all take every step together; if `world`
    does not divide `length`, the first ones are drawn again.
    """

    def __init__(self, length: int, rank: int, world: int) -> None:
        super().__init__(length, rank, world)
        if len(self.indices) < -(-length // world):
            self.indices.append(rank % length)
        self.length = length
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Draw the windows of `epoch`; called by Lightning."""
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
    drop_last: bool = False,
) -> DataLoader[Sample]:
    """A loader of batches for this process; the last batch may be smaller, unless `drop_last`."""
    sampler = EpochSampler if windows.infinite else RankSampler
    return DataLoader(
        windows,  # type: ignore[arg-type]  # data/ does not import torch
        batch_size=batch_size,
        sampler=sampler(len(windows), rank, world),
        num_workers=workers,
        collate_fn=Batch.from_samples,
        persistent_workers=workers > 0,
        drop_last=drop_last,
        pin_memory=pin and torch.cuda.is_available(),
    )
