"""The runs of a map, which compute a tile together: the images are read once."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from geotune.api.predict_options import LoadOptions
from geotune.api.predictor import Predictor
from geotune.api.shared_backbones import share_backbones, shared_passes
from geotune.data.raster.windows import Window
from geotune.errors import GeotuneError
from geotune.feature_cache.cache_key import backbone_dependencies
from geotune.inference.detection import detect_together
from geotune.inference.sliding_window import WindowOptions
from geotune.inference.together import MapModel, ModelsTogether
from geotune.mapping.plan import Tile
from geotune.mapping.tile_states import write_failure
from geotune.mapping.tile_worker import INPUT_ERRORS, TileWorker
from geotune.mapping.workers import WorkerOptions
from geotune.utils.text import join_some

Row = Mapping[str, Any]

_SETTINGS = {
    "normalization": "normalisation (data.normalize)",
    "frozen_precision": "precision (method.frozen_precision)",
}
"""What else than the backbone has to be equal, by the names of `backbone_dependencies`."""


class TileGroup:
    """Computes the tiles of one or several runs; frozen backbones are shared.

    Raises `GeotuneError` as `TileWorker` does.

    Attributes:
        workers: one for each run.
        notes: for the user: which of several runs share a backbone, and a precision that is slow
            here, which only the first worker says.
    """

    def __init__(self, options: WorkerOptions) -> None:
        torch.set_num_threads(options.threads)
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
        files = LoadOptions(**options.files)
        self.workers: list[TileWorker] = []
        self._groups: list[list[int]] = []
        for run in options.runs:
            self.workers.append(TileWorker(run, files, options.number))
            # at once: a backbone that is there already is not kept in memory
            self._groups = share_backbones([each.predictor for each in self.workers])
        names = [run.name for run in options.runs]
        self.notes = [_sharing(self.workers, names, self._groups)] if len(names) > 1 else []
        if options.number == 0:
            self.notes += self.workers[0].predictor.precision_notes

    def run_tile(self, index: int, runs: Sequence[int]) -> dict[str, Any]:
        """Compute a tile of the plans and write it; a fault of its scene is written instead.

        Args:
            index: of the tile.
            runs: indices of the runs.

        Returns the tile's name, the seconds, the notes, and `failed`: the `error` and `code` of
        runs, by index.
        """
        started = time.perf_counter()
        tile = self.workers[runs[0]].plan.tiles[index]
        failed = self._run_tile(index, runs)
        seconds = time.perf_counter() - started
        return {"tile": tile.tile, "seconds": seconds, "notes": self.notes, "failed": failed}

    def _run_tile(self, index: int, runs: Sequence[int]) -> dict[str, Any]:
        active = [self.workers[each] for each in runs]
        tiles = [each.plan.tiles[index] for each in active]
        faults: dict[str, str] = {}
        try:
            if len(active) == 1:
                predicted = [active[0].predict(tiles[0], faults)]
            else:
                groups = [[i for i in group if i in runs] for group in self._groups]
                with shared_passes([[self.workers[i].predictor for i in g] for g in groups]):
                    predicted = _predict_together(active, tiles[0], faults)
            for worker, tile, each in zip(active, tiles, predicted, strict=True):
                worker.write(tile, each, faults)
        except GeotuneError as error:
            if error.code not in INPUT_ERRORS:
                raise
            if len(runs) > 1:  # alone, to find which of them it is about
                failures = [self._run_tile(index, [run]) for run in runs]
                return {run: each for failed in failures for run, each in failed.items()}
            write_failure(active[0].store, tiles[0], str(error), error.code)
            return {str(runs[0]): {"error": str(error), "code": error.code}}
        except torch.OutOfMemoryError as error:
            raise GeotuneError(
                f"memory ran out on {active[0].predictor.device} "
                f"({str(error).partition('.')[0]}); choose a smaller --batch-size, which needs "
                "another --out, or fewer --workers",
                code="out-of-memory",
            ) from error
        return {}


def _predict_together(
    workers: Sequence[TileWorker], tile: Tile, faults: dict[str, str]
) -> list[Iterable[Any]]:
    """What each run predicts in a tile, as `TileWorker.predict`."""
    predictors = [each.predictor for each in workers]
    if predictors[0].kind == "table":
        return _rows_together(workers[0], predictors, tile, faults)
    source, options = workers[0].source(tile.scene), _windows_together(predictors)
    maps = [each for each in predictors if each.kind != "objects"]
    detectors = [each for each in predictors if each.kind == "objects"]
    blocks: list[list[Any]] = [[] for _ in maps]
    if maps:
        together = ModelsTogether(
            [MapModel(each.model, each.steps.channels) for each in maps],
            [each.model for each in detectors],
            tile.core,
        )
        for parts in together.blocks(source, options):
            for predictor, own, part in zip(maps, blocks, parts, strict=True):
                assert predictor.steps.to_block is not None
                own.append(predictor.steps.to_block(part))
        windows = together.detected
    else:
        models = [each.model for each in detectors]
        found = detect_together(models, source, options, area=tile.core)
        windows = [list(each) for each in zip(*found, strict=True)] or [[] for _ in models]
    of_maps, of_detectors = iter(blocks), iter(windows)
    return [next(of_detectors if each.kind == "objects" else of_maps) for each in predictors]


def _windows_together(predictors: Sequence[Predictor]) -> WindowOptions:
    """The options of the first, with which each predictor receives the windows."""
    options = [each.windows() for each in predictors]
    receivers = [each.on_areas for each in options if each.on_areas is not None]

    def on_areas(windows: Sequence[Window]) -> None:
        for receive in receivers:
            receive(windows)

    return replace(options[0], on_areas=on_areas)


def _rows_together(
    worker: TileWorker, predictors: Sequence[Predictor], tile: Tile, faults: dict[str, str]
) -> list[Iterable[Any]]:
    """The rows of each run for some images."""
    counts: list[int] = []

    def model(images: Tensor, **known: Tensor) -> Tensor:
        outputs = [each.model(images, **known) for each in predictors]
        counts[:] = [each.shape[1] for each in outputs]
        return torch.cat(outputs, dim=1)

    def rows(outputs: Tensor) -> list[Row]:
        parts = zip(predictors, torch.split(outputs, counts, dim=1), strict=True)
        columns = [predictor.rows(part) for predictor, part in parts]
        return [{"runs": each} for each in zip(*columns, strict=True)]

    found = worker.rows(tile, faults, model, rows)
    return [
        [
            (name, {k: v for k, v in row.items() if k != "runs"} | dict(row["runs"][i]))
            for name, row in found
        ]
        for i in range(len(predictors))
    ]


def _difference(workers: Sequence[TileWorker], names: Sequence[str], index: int) -> str:
    """Why a run with a frozen backbone shares it with no other."""
    models = [each.predictor.built.model for each in workers]
    own = backbone_dependencies(models[index])
    for key, word in _SETTINGS.items():  # of runs that differ in nothing else
        alike = [
            name
            for name, model in zip(names, models, strict=True)
            if model.encoder.backbone_frozen
            and {k for k, v in backbone_dependencies(model).items() if v != own[k]} == {key}
        ]
        if alike:
            return f"its {word} is not that of {join_some(alike)}"
    return f"no other has its {models[index].encoder.backbone.name}"


def _sharing(
    workers: Sequence[TileWorker], names: Sequence[str], groups: Sequence[Sequence[int]]
) -> str:
    """Which runs share a pass, and which run alone."""
    parts = []
    for group in groups:
        encoder = workers[group[0]].predictor.built.model.encoder
        listed, backbone = join_some([names[i] for i in group]), encoder.backbone.name
        if len(group) > 1:
            parts.append(f"{listed} share one pass of {backbone}")
        elif encoder.backbone_frozen:
            parts.append(f"{listed} runs by itself, as {_difference(workers, names, group[0])}")
        else:
            parts.append(f"{listed} runs by itself, as its method changes {backbone}")
    return "; ".join(parts)
