"""A loaded model with the checked options of a prediction, for any number of scenes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from geotune.adapter_config import NOVELTY, AdapterConfig, load_adapter_config
from geotune.api.class_thresholds import class_thresholds, missed_thresholds
from geotune.api.novelty import load_novelty
from geotune.api.predict_options import LoadOptions, PredictOptions, check_options
from geotune.api.recipes import pretraining_error
from geotune.api.scene_writers import SceneSteps, map_steps, object_steps, table_rows, value_steps
from geotune.data.raster.source import RasterSource
from geotune.errors import GeotuneError
from geotune.factory.open_data import require_dates
from geotune.hub.download import AdapterSource, adapter_source
from geotune.inference.further_formats import Shape
from geotune.utils.precision import (
    PredictionPrecision,
    autocast,
    prediction_notes,
)
from geotune.utils.text import word

if TYPE_CHECKING:
    from geotune.factory.build_model import BuiltModel
    from geotune.inference.ensemble import Ensemble, Spread
    from geotune.inference.image_table import RowsFn
    from geotune.inference.novelty_map import NoveltyTracker
    from geotune.inference.sliding_window import WindowOptions
    from geotune.tasks.base import TableTask
    from geotune.types import FeatureMaps


def predicting_adapter(run: Path | str) -> tuple[AdapterSource, AdapterConfig]:
    """The adapter of a run. Raises `GeotuneError` for that of a pretraining."""
    adapter = adapter_source(run)
    config = load_adapter_config(adapter.folder)
    if config.sections["task"].get("kind") == "reconstruct":
        raise pretraining_error(adapter.folder)
    return adapter, config


class Predictor:
    """Predicts scenes with the same model and options.

    Args:
        adapter: the run, as of `predicting_adapter`.
        config: of the adapter.
        options: what is predicted.
        files: where the models are.
        device: for the computation.

    Attributes:
        adapters: the adapter and those of the ensemble.
        built: the first model.
        kind: `classes`, `values`, `objects` or `table`.
        model: followed by the post-processing of the task, averaged over all members.
        encode: as `Model.encode` of the first model; may be replaced, see
            `api.shared_backbones`.

    Raises `GeotuneError` if a model cannot be loaded, or an option does not apply to it.
    """

    def __init__(
        self,
        adapter: AdapterSource,
        config: AdapterConfig,
        options: PredictOptions,
        files: LoadOptions,
        device: Any,
    ) -> None:
        from geotune.factory.build_model import load_adapter
        from geotune.inference.ensemble import ORIENTATIONS, Ensemble, averaged, fused

        self.adapters = [adapter, *map(adapter_source, files.ensemble)]
        self.config, self.options, self.device = config, options, device

        def load(source: AdapterSource) -> BuiltModel:
            return load_adapter(source, files.weights, backbone=files.backbone, method=files.method)

        reference = load_novelty(adapter, config) if options.novelty else None
        self.built = load(adapter)
        self.novelty: NoveltyTracker | None = None
        if reference is not None:
            from geotune.inference.novelty_map import NoveltyTracker

            encoder = self.built.model.encoder
            stem_maps = len(encoder.taps) - len(encoder.reader.taps)
            self.novelty = NoveltyTracker(reference, stem_maps)
            width = sum(tap.channels for tap in encoder.taps[stem_maps:])
            if len(reference.mean) != width:
                raise GeotuneError(
                    f"{adapter.folder / NOVELTY}: found features of {len(reference.mean)} numbers, "
                    f"and the model has {width}; copy the file again",
                    code="adapter-mismatch",
                    file=adapter.folder / NOVELTY,
                )
        self.kind = self.built.task.output_kind
        others = [load(_checked_member(each, adapter, config)) for each in self.adapters[1:]]
        check_options(options, self.kind, adapter.folder)
        self.encode: Callable[..., tuple[FeatureMaps, tuple[int, int]]] = self.built.model.encode
        self._members: Ensemble = Ensemble(
            [
                _postprocessing(
                    self.built,
                    device,
                    options.precision,
                    lambda *x, **known: self.encode(*x, **known),
                    self.novelty,
                ),
                *(_postprocessing(each, device, options.precision) for each in others),
            ],
            ORIENTATIONS[options.tta],
        )
        self.spread: Spread = "none"
        if options.uncertainty:
            self.spread = _spread(self.built.task, len(self._members), adapter.folder)
        self.model: Callable[..., Any] = (
            fused(self._members) if self.kind == "objects" else averaged(self._members, self.spread)
        )
        if self.novelty is not None:
            self.model = self.novelty.wrap(self.model)

    def check_sources(self, sources: Mapping[str, RasterSource]) -> None:
        """Raise `GeotuneError` for scenes of another number of dates than the model takes."""
        require_dates(dict(sources), self.built.backbone.timesteps)

    @property
    def window(self) -> int:
        """Window side in pixels."""
        window = self.options.window
        return self.config.prediction.window if window is None else window

    @property
    def map_endings(self) -> list[str]:
        """What the names of a scene's maps end with."""
        endings = {
            "classes": ["classes", "probabilities", "uncertainty", "novelty"],
            "values": [*map(word, self.built.task.classes), "uncertainty", "novelty"],
            "objects": ["novelty"],
        }
        return endings.get(self.kind, [])

    @property
    def layer(self) -> str:
        """The layer of the GeoPackages."""
        return "objects" if self.kind == "objects" else "polygons"

    @property
    def shape(self) -> Shape:
        """What the features of the layer are."""
        if self.kind == "classes":
            return "polygons"
        return cast("Shape", getattr(self.built.task, "boxes", "horizontal"))

    @property
    def image_options(self) -> dict[str, Any]:
        """How the model is run over the images of a table."""
        return {
            "bands": self.built.normalization.bands,
            "batch_size": self.options.batch_size,
            "device": self.device,
            "window": self.window,
            "metadata": self.built.backbone.metadata,
        }

    def windows(self, on_progress: Callable[[int, int], None] | None = None) -> WindowOptions:
        """How the model is run over the windows of a scene."""
        from geotune.inference.sliding_window import WindowOptions

        if self.novelty is not None:
            self.novelty.start()
        return WindowOptions(
            **self.image_options,
            overlap=self.options.overlap,
            on_progress=on_progress,
            on_areas=None if self.novelty is None else self.novelty.expect,
        )

    @cached_property
    def steps(self) -> SceneSteps:
        """How a scene is predicted and written; not for tables."""
        options = self.options
        if self.kind == "classes":
            classes = self.built.task.classes
            return map_steps(
                self.built,
                probabilities=options.probabilities,
                uncertainty=options.uncertainty,
                members=len(self._members),
                polygons=options.polygons and options.outlines,
                thresholds=class_thresholds(self.config.prediction, classes, options.threshold),
            )
        if self.kind == "values":
            return value_steps(self.built, uncertainty=options.uncertainty)
        from geotune.factory.build_model import score_thresholds

        scores = score_thresholds(self.config.prediction, self.built, options.score)
        return object_steps(self.built, scores)

    @cached_property
    def rows(self) -> RowsFn:
        """The columns of a table of images."""
        task = cast("TableTask", self.built.task)
        rows, novelty = table_rows(task, self.spread, len(self._members)), self.novelty
        if novelty is None:
            return rows
        return lambda outputs: [
            {**row, **columns}
            for row, columns in zip(rows(outputs), novelty.columns(), strict=True)
        ]

    @property
    def notes(self) -> list[str]:
        """Messages about all scenes."""
        notes = self.precision_notes
        if self.kind == "classes" and self.options.threshold is None:
            notes += missed_thresholds(self.config.prediction)
        return notes

    @property
    def precision_notes(self) -> list[str]:
        """A message if the precision is slow on the device."""
        return prediction_notes(self.options.precision, self.device.type)

    def scene_notes(self, sources: Mapping[str, RasterSource]) -> list[str]:
        """Messages about scenes, and about the models that predict them."""
        from geotune.inference.input_check import compare_images

        notes = [f"model: {each}" for each in self.adapters if each.reference is not None]
        if len(self._members) > 1:
            notes.append(f"means of {len(self._members)} predictions: {self._members}")
        images = self.config.prediction.images
        return notes if images is None else [*notes, *compare_images(dict(sources), images)]


def _checked_member(
    source: AdapterSource, run: AdapterSource, first: AdapterConfig
) -> AdapterSource:
    """A further run of an ensemble. Raises `GeotuneError` if it answers another question."""
    config = load_adapter_config(source.folder)
    tasks = [
        {key: each.sections["task"].get(key) for key in ("kind", "classes", "boxes", "level")}
        for each in (first, config)
    ]
    problem = ""
    if tasks[0] != tasks[1]:
        differing = next(key for key in tasks[0] if tasks[0][key] != tasks[1][key])
        problem = f"its task.{differing} is {tasks[1][differing]}, not {tasks[0][differing]}"
    elif config.normalization.bands != first.normalization.bands:
        bands = [", ".join(each.normalization.bands) for each in (config, first)]
        problem = f"its bands are {bands[0]}, not {bands[1]}"
    elif config.prediction.resolution_m != first.prediction.resolution_m:
        sizes = [each.prediction.resolution_m for each in (config, first)]
        problem = f"its data.resolution is {sizes[0]}, not {sizes[1]}"
    elif config.metadata != first.metadata:
        problem = f"its backbone takes {config.metadata}, not {first.metadata}"
    if problem:
        raise GeotuneError(
            f"--ensemble {source}: cannot be averaged with {run}: {problem}; name runs of one "
            "task, with the same classes, bands and resolution",
            code="ensemble-mismatch",
            file=source.folder,
        )
    return source


def _spread(task: Any, members: int, run: Path) -> Spread:
    """What describes the members beside their mean. Raises `GeotuneError` if nothing can."""
    from geotune.tasks.classify import Classify

    if task.output_kind == "classes":
        return "entropy" if members > 1 else "none"  # that of the map itself is computed from it
    if isinstance(task, Classify):
        return "binary-entropy" if task.multilabel else "entropy"
    if members == 1:
        raise GeotuneError(
            f"--uncertainty: {run} predicts numbers, whose uncertainty is the standard deviation "
            "of several predictions; add --tta d4, or --ensemble with further runs",
            code="option-not-applicable",
        )
    return "deviation"


def _postprocessing(
    built: BuiltModel,
    device: Any,
    precision: PredictionPrecision,
    encode: Callable[..., tuple[FeatureMaps, tuple[int, int]]] | None = None,
    novelty: NoveltyTracker | None = None,
) -> Callable[..., Any]:
    """The model followed by the post-processing of the task.

    `encode` replaces that of the model; `novelty` sees the encoder's maps.
    """
    model = built.model.to(device).eval()

    def answer(images: Any, **known: Any) -> Any:
        with autocast(device, precision):
            maps, size = (encode or model.encode)(images, **known)
            if novelty is not None:
                novelty.observe(maps, images)
            return built.task.postprocess(model.decode(maps, size))

    return answer
