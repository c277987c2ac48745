"""Dataset of windows with cached features."""

from __future__ import annotations

from dataclasses import replace

from geotune.data.window_datasets import FixedWindowDataset, GridWindowDataset
from geotune.feature_cache.store import FeatureStore
from geotune.types import Sample


class CachedWindowDataset:
    """Windows whose samples carry their backbone features.

    Args:
        windows: the dataset to wrap.
        keys: of the features; window `i` in orientation `k` has index `i * orientations + k`.
        store: holds the features.
    """

    def __init__(
        self, windows: FixedWindowDataset | GridWindowDataset, keys: list[str], store: FeatureStore
    ) -> None:
        self.windows = windows
        self.infinite = windows.infinite
        self.keys = keys
        self.store = store

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> Sample:
        window, orientation = self.windows.resolve_index(index)
        features = self.store.read(self.keys[window * self.windows.num_orientations + orientation])
        return replace(self.windows.sample(window, orientation), features=features)
