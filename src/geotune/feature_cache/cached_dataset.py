"""Windows with the features that a constant backbone makes of them."""

from __future__ import annotations

from dataclasses import replace

from geotune.data.window_datasets import FixedWindowDataset, GridWindowDataset
from geotune.feature_cache.store import FeatureStore
from geotune.types import Sample


class CachedWindowDataset:
    """Windows whose samples carry their features."""

    def __init__(
        self, windows: FixedWindowDataset | GridWindowDataset, keys: list[str], store: FeatureStore
    ) -> None:
        self.windows = windows
        self.infinite = windows.infinite
        self.keys = keys  # of window i laid way w at i * ways + w
        self.store = store

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> Sample:
        which, way = self.windows.resolve_index(index)
        features = self.store.read(self.keys[which * self.windows.num_orientations + way])
        return replace(self.windows.sample(which, way), features=features)
