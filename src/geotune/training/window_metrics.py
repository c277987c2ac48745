"""What a run found in each test window, as a file: from it any choice of windows can be judged."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geotune.data.window_datasets import GridWindowDataset
from geotune.errors import GeotuneError
from geotune.metrics.state import MetricState
from geotune.utils.atomic import write_atomically


@dataclass(frozen=True)
class WindowMetrics:
    """Windows of a part of the data, and what was counted in each.

    Attributes:
        names: as people read them: `durban (128, 256)`.
        scenes: of each window, by name.
        groups: what a split keeps together.
        places: `(N, 2)`, row and column of the window's first pixel in its scene.
        scores: `(N,)` by `Task.score`, NaN where there is none.
        parts: of each window; `Metrics.compute_from` makes figures of them, joined.
    """

    names: tuple[str, ...]
    scenes: tuple[str, ...]
    groups: tuple[str, ...]
    positions: NDArray[np.int64]
    scores: NDArray[np.float64]
    states: tuple[MetricState, ...]

    @staticmethod
    def from_windows(
        windows: GridWindowDataset, scores: Sequence[float], states: Sequence[MetricState]
    ) -> WindowMetrics:
        """Of windows in their order."""
        scenes = [windows.scenes[place.scene] for place in windows.windows]
        return WindowMetrics(
            tuple(windows.sample_name(i) for i in range(len(windows))),
            tuple(scene.name for scene in scenes),
            tuple(scene.group for scene in scenes),
            np.array([place[1:] for place in windows.windows], dtype=np.int64).reshape(-1, 2),
            np.array(scores, dtype=np.float64),
            tuple(states),
        )

    def save(self, path: Path) -> None:
        """Write an npz: each field by its name, of `parts` `sum.<name>` `(N, ...)`.

        Of lists those of all windows are joined as `list.<name>`, and `rows.<name>` `(N,)` says how
        many are a window's.
        """
        arrays: dict[str, NDArray[Any]] = {
            "names": np.array(self.names),
            "scenes": np.array(self.scenes),
            "groups": np.array(self.groups),
            "places": self.positions,
            "scores": self.scores,
        }
        for name in self.states[0].sums:
            arrays[f"sum.{name}"] = np.stack([part.sums[name] for part in self.states])
        for name in self.states[0].lists:
            lists = [part.lists[name] for part in self.states]
            arrays[f"list.{name}"] = np.concatenate(lists)
            arrays[f"rows.{name}"] = np.array([len(each) for each in lists])
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
        write_atomically(path, buffer.getvalue())

    @staticmethod
    def load(path: Path) -> WindowMetrics:
        """Read what `save` wrote. Raises `GeotuneError` for what is missing or something else."""
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = dict(file)
            sums = {k.removeprefix("sum."): v for k, v in arrays.items() if k.startswith("sum.")}
            lists = {
                name: np.split(arrays[f"list.{name}"], np.cumsum(rows)[:-1])
                for key, rows in arrays.items()
                if key.startswith("rows.")
                for name in [key.removeprefix("rows.")]
            }
            return WindowMetrics(
                tuple(arrays["names"].tolist()),
                tuple(arrays["scenes"].tolist()),
                tuple(arrays["groups"].tolist()),
                arrays["places"],
                arrays["scores"],
                tuple(
                    MetricState(
                        {name: values[i] for name, values in sums.items()},
                        {name: values[i] for name, values in lists.items()},
                    )
                    for i in range(len(arrays["names"]))
                ),
            )
        except FileNotFoundError as error:
            raise GeotuneError(
                f"{path}: is not there; run geotune test {path.parent} first"
            ) from error
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise GeotuneError(
                f"{path}: holds no results of windows ({error}); run geotune test {path.parent} "
                "again"
            ) from error
