"""Metric state of each test window, in a file from which any subset of windows can be scored."""

from __future__ import annotations

import io
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geotune.data.scenes.footprints import areas, circles, connected
from geotune.data.window_datasets import GridWindowDataset
from geotune.errors import GeotuneError
from geotune.metrics.state import MetricState
from geotune.utils.atomic import write_atomically


@dataclass(frozen=True)
class WindowMetrics:
    """Metric states of the windows of a split.

    Attributes:
        names: for display, such as `durban (128, 256)`.
        scenes: scene names.
        groups: groups of the scenes, see `data.split`.
        areas: numbers of the scenes' areas, see `areas`; those of the groups in older files.
        positions: `(N, 2)`, row and column of the window's first pixel in its scene.
        scores: `(N,)`, `Task.score`, NaN without one.
        states: `Metrics.compute_from` computes metrics of a merged selection.
        circles: `(N, 4)`, of the scenes, see `footprints.circles`; NaN in older files.
    """

    names: tuple[str, ...]
    scenes: tuple[str, ...]
    groups: tuple[str, ...]
    areas: tuple[int, ...]
    positions: NDArray[np.int64]
    scores: NDArray[np.float64]
    states: tuple[MetricState, ...]
    circles: NDArray[np.float64]

    @staticmethod
    def from_windows(
        windows: GridWindowDataset, scores: Sequence[float], states: Sequence[MetricState]
    ) -> WindowMetrics:
        """From windows and their results, in the same order."""
        scenes = [windows.scenes[index.scene] for index in windows.windows]
        around = circles(windows.scenes)
        area_of = areas(windows.scenes, around)
        return WindowMetrics(
            tuple(windows.sample_name(i) for i in range(len(windows))),
            tuple(scene.name for scene in scenes),
            tuple(scene.group for scene in scenes),
            tuple(area_of[index.scene] for index in windows.windows),
            np.array([index[1:] for index in windows.windows], dtype=np.int64).reshape(-1, 2),
            np.array(scores, dtype=np.float64),
            tuple(states),
            around[[index.scene for index in windows.windows]].reshape(-1, 4),
        )

    @staticmethod
    def concatenate(parts: Sequence[WindowMetrics]) -> WindowMetrics:
        """The windows of test splits without common scenes, such as folds.

        Areas of two parts that adjoin or have a common group become one.
        """
        scenes = tuple(scene for part in parts for scene in part.scenes)
        groups = tuple(group for part in parts for group in part.groups)
        around = np.concatenate([part.circles for part in parts])
        # a scene's first window stands for it; its part has joined what is alike there
        first = np.unique(scenes, return_index=True)[1].tolist()
        of_part = [(i, area) for i, part in enumerate(parts) for area in part.areas]
        common = Counter(group for part in parts for group in {*part.groups})
        shared = [groups[i] if common[groups[i]] > 1 else i for i in first]
        joined = connected(around[first], [of_part[i] for i in first], shared)
        area_of = dict(zip((scenes[i] for i in first), joined, strict=True))
        return WindowMetrics(
            tuple(name for part in parts for name in part.names),
            scenes,
            groups,
            tuple(area_of[scene] for scene in scenes),
            np.concatenate([part.positions for part in parts]),
            np.concatenate([part.scores for part in parts]),
            tuple(state for part in parts for state in part.states),
            around,
        )

    def save(self, path: Path, **further: NDArray[Any]) -> None:
        """Write an npz file: fields by name, sums as `sum.<name>` `(N, ...)`.

        Lists of all windows are concatenated as `list.<name>`; `rows.<name>` `(N,)` holds the
        length of each window's list. `further` arrays are stored beside them.
        """
        arrays: dict[str, NDArray[Any]] = {
            "names": np.array(self.names),
            "scenes": np.array(self.scenes),
            "groups": np.array(self.groups),
            "areas": np.array(self.areas, dtype=np.int64),
            "places": self.positions,
            "scores": self.scores,
            "circles": self.circles,
            **further,
        }
        for name in self.states[0].sums:
            arrays[f"sum.{name}"] = np.stack([state.sums[name] for state in self.states])
        for name in self.states[0].lists:
            lists = [state.lists[name] for state in self.states]
            arrays[f"list.{name}"] = np.concatenate(lists)
            arrays[f"rows.{name}"] = np.array([len(rows) for rows in lists])
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
        write_atomically(path, buffer.getvalue())

    @staticmethod
    def load(path: Path) -> WindowMetrics:
        """Read a file of `save`. Raises `GeotuneError` if it is missing or invalid."""
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
            of_groups = np.unique(arrays["groups"], return_inverse=True)[1]
            return WindowMetrics(
                tuple(arrays["names"].tolist()),
                tuple(arrays["scenes"].tolist()),
                tuple(arrays["groups"].tolist()),
                tuple(arrays["areas"].tolist() if "areas" in arrays else of_groups.tolist()),
                arrays["places"],
                arrays["scores"],
                tuple(
                    MetricState(
                        {name: values[i] for name, values in sums.items()},
                        {name: values[i] for name, values in lists.items()},
                    )
                    for i in range(len(arrays["names"]))
                ),
                arrays.get("circles", np.full((len(arrays["names"]), 4), np.nan)),
            )
        except FileNotFoundError as error:
            raise GeotuneError(
                f"{path}: file not found; run geotune test {path.parent} first",
                code="run-incomplete",
                file=path,
            ) from error
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise GeotuneError(
                f"{path}: not a valid file of window metrics ({error}); run geotune test "
                f"{path.parent} again",
                code="file-unreadable",
                file=path,
            ) from error
