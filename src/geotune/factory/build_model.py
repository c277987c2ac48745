"""Build the model and task of a recipe, or load those of a saved adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from geotune.adapter_config import ADAPTER_CONFIG, TENSORS, PredictionSettings, load_adapter_config
from geotune.adapter_io import check_base_model, load_adapter_state, read_tensors
from geotune.backbones.base import Backbone
from geotune.backbones.create import build_backbone, model_info
from geotune.config import ModelSections, Recipe, parse_sections
from geotune.config.decoder_options import DecoderOptions
from geotune.config.method_options import EstOptions, MethodOptions, PythonMethodOptions
from geotune.config.task_options import ReconstructOptions
from geotune.errors import GeotuneError
from geotune.factory.allocation_limit import AllocationLimit, AllocationLimitError
from geotune.hub.download import BACKBONE, AdapterSource, adapter_source, download, pinned
from geotune.hub.reference import is_hub_name
from geotune.methods.create import create_method
from geotune.metrics.class_threshold import RareClass
from geotune.model import Model
from geotune.normalization import choose_normalization
from geotune.reconstruction import ReconstructionModel, as_teacher, copy_of_backbone
from geotune.registry import DECODERS, TASKS
from geotune.tasks.base import Task
from geotune.tasks.detect import Detect
from geotune.tasks.segment import Segment
from geotune.types import BandStatistics, Normalization
from geotune.utils.activation_checkpointing import RECOMPUTING

if TYPE_CHECKING:  # a model does not need the libraries that read files
    from geotune.data.datamodule import DataModule
    from geotune.factory.build_data import FileInfo


@dataclass(frozen=True)
class BuiltModel:
    """The model and task of a recipe, ready for training.

    Attributes:
        notes: messages for the user about weights, bands and normalisation.
    """

    model: Model
    task: Task
    normalization: Normalization
    notes: list[str]

    @property
    def backbone(self) -> Backbone:
        """The model's backbone."""
        return self.model.encoder.backbone


def resolve_recipe(recipe: Recipe, data: DataModule | FileInfo) -> tuple[Recipe, list[str]]:
    """Set unset options from the metadata of the files and the decoder; returns recipe and notes.

    A stem that the decoder does not read is left out.
    """
    section = recipe.backbone
    info = model_info(section.name)
    supported = () if info is None else info.supported_options
    values: dict[str, Any] = {}
    notes = []
    if "gsd" in supported and section.gsd is None and data.gsd_m is not None:
        values["gsd"] = round(data.gsd_m, 3)
        notes.append(
            f"{section.name}: using a ground sampling distance of {values['gsd']:g} m from the "
            "files"
        )
    if "wavelengths" in supported and section.wavelengths is None and data.wavelengths:
        values["wavelengths"] = data.wavelengths
        listed = ", ".join(f"{band} {length:g} um" for band, length in data.wavelengths.items())
        notes.append(f"{section.name}: using the wavelengths from the files: {listed}")
    if section.weights is not None and is_hub_name(section.weights):
        values["weights"] = Path(pinned(section.weights))
        notes.append(f"backbone.weights: {values['weights']}")
    task, task_notes = _with_label_statistics(
        _with_pixel_size(recipe.task, data.gsd_m), data.label_mean_std
    )
    changes = {
        "backbone": section.model_copy(update=values),
        "task": task,
        "method": for_decoder(recipe.method, recipe.decoder),
    }
    return recipe.model_copy(update=changes), notes + task_notes


def for_decoder(method: MethodOptions, decoder: DecoderOptions) -> MethodOptions:
    """The options of a method with those that depend on the decoder."""
    values: dict[str, Any] = {} if decoder.reads_stem else {"stem_width": 0}
    if isinstance(method, EstOptions) and method.output is None:
        # maps as wide as the backbone's cost a pooling decoder nothing
        values["output"] = "sum" if decoder.level == "image" else "side"
    return method.model_copy(update=values)


def _with_pixel_size(task: Any, gsd_m: float | None) -> Any:
    """Set `pixel_m` of a point task from the files, unless the recipe sets it."""
    if getattr(task, "boxes", "") != "points" or task.pixel_m is not None or gsd_m is None:
        return task
    return task.model_copy(update={"pixel_m": round(gsd_m, 3)})


def _with_label_statistics(
    task: Any, mean_std: tuple[float, float] | None
) -> tuple[Any, list[str]]:
    """Set `mean` and `std` of a regression task from its labels, unless the recipe sets them."""
    if mean_std is None:
        return task, []
    measured = dict(zip(("mean", "std"), mean_std, strict=True))
    unset = [
        key for key in measured if key in type(task).model_fields and getattr(task, key) is None
    ]
    if "std" in unset and not measured["std"] > 0:
        raise GeotuneError(
            f"every label of the training split is {measured['mean']:g}, so there is nothing to "
            "learn; check data.labels",
            code="labels-constant",
            key="data.labels",
        )
    values = {key: float(f"{measured[key]:.6g}") for key in unset}
    listed = " and ".join(f"{key} {value:g}" for key, value in values.items())
    notes = [f"labels are standardised with {listed} of the training split"] if values else []
    return task.model_copy(update=values), notes


def build_training(
    recipe: Recipe, statistics: BandStatistics, class_counts: Sequence[int] = ()
) -> BuiltModel:
    """Build the model to train; its initial weights depend only on the recipe's seed.

    `class_counts` are the labelled pixels of each class in training.
    """
    backbone = build_backbone(recipe.backbone, statistics.bands)
    normalization, notes = choose_normalization(
        backbone, statistics, recipe.data.normalize, recipe.data.nodata_fill
    )
    torch.manual_seed(recipe.train.seed)
    if backbone.random_weights:
        weights = f"{backbone.name} has random weights: nothing was pretrained"
    else:
        weights = f"{backbone.name}: weights from {backbone.source}, licence {backbone.licence}"
    task = build_task(recipe)
    if isinstance(task, Segment):
        task = task.with_class_counts(class_counts)
    return BuiltModel(
        build_model(recipe, backbone, normalization),
        task,
        normalization,
        [weights, *backbone.notes, *notes],
    )


def build_model(recipe: Recipe, backbone: Backbone, normalization: Normalization) -> Model:
    """Build the method and decoder of a recipe on `backbone`, with activation checkpointing."""
    model = _model(recipe, backbone, normalization)
    if recipe.train.activation_checkpointing in RECOMPUTING:
        model.recompute(recipe.train.activation_checkpointing)
    return model


def build_task(recipe: ModelSections) -> Task:
    """Build the task of a recipe."""
    task: Task = TASKS[recipe.task.kind].load()(recipe.task)
    return task


def with_val_threshold(task: Task, details: Mapping[str, Any]) -> Task:
    """Set the thresholds of a detector, or of rare classes in maps, to the best in validation.

    `details` are those of the validation metrics.
    """
    if isinstance(task, Detect) and "threshold" in details:
        return task.with_score_threshold(details["threshold"])
    if isinstance(task, Segment):
        chosen = {one["class"]: one["threshold"] for one in details.get("class_thresholds", ())}
        rare = [RareClass(task.classes.index(name), t) for name, t in chosen.items()]
        return task.with_rare_classes(rare)
    return task


NUMBERS_BESIDE_TENSORS = 2**27
"""What a model may hold beside an adapter's tensors: tables, masks, and activations of a trial."""


def load_adapter(
    folder: AdapterSource | Path | str,
    weights: Path | str | None = None,
    *,
    backbone: str | None = None,
    method: str | None = None,
) -> BuiltModel:
    """Load a trained model from a run folder or from the two files of an adapter.

    Args:
        folder: contains `adapter.json` and `adapter.safetensors`; also `hub:ORG/NAME[@REVISION]`.
        weights: weights of the base model, if they have moved since training.
        backbone: name of a backbone that is a Python file, to confirm that its code may run.
        method: `method.kind` of a method in a Python file, to confirm that its code may run.

    Raises `GeotuneError` for files that do not belong together, another base model, and a Python
    file that was not confirmed.
    """
    source = folder if isinstance(folder, AdapterSource) else adapter_source(folder)
    folder = source.folder
    config = load_adapter_config(folder)
    sections = parse_sections(config.sections, str(folder / ADAPTER_CONFIG))
    name = sections.backbone.name
    if name.partition("/")[0] == "python" and backbone is None:
        raise GeotuneError(
            f"{source}: the backbone is a Python file, which an adapter may not run by itself; if "
            f"the file is yours, confirm it with --backbone {name}",
            code="adapter-code",
            key="backbone.name",
            file=folder,
        )
    if isinstance(sections.method, PythonMethodOptions):
        if method is None:
            raise GeotuneError(
                f"{source}: the method is a Python file, which an adapter may not run by itself; "
                f"if the file is yours, confirm it with --method {sections.method.kind}",
                code="adapter-code",
                key="method.kind",
                file=folder,
            )
        own = sections.method.model_copy(update={"kind": method})
        sections = sections.model_copy(update={"method": own})
    own_weights = _own_weights(source, sections.backbone.weights) if weights is None else weights
    changes: dict[str, Any] = {} if own_weights is None else {"weights": Path(own_weights)}
    if backbone is not None:
        changes["name"] = backbone
    options = sections.backbone.model_copy(update=changes)
    try:
        base = build_backbone(options, config.normalization.bands)
    except GeotuneError as error:
        if error.key != "backbone.weights":
            raise
        hint = "check --weights" if weights else "give the weights of the training with --weights"
        raise GeotuneError(
            f"{source}: {error}; for a prediction or test, {hint}",
            code=error.code,
            key=error.key,
            file=error.file,
        ) from error
    check_base_model(base, config, folder)
    tensors = read_tensors(folder, config)
    described = NUMBERS_BESIDE_TENSORS + 16 * sum(tensor.numel() for tensor in tensors.values())
    try:
        with AllocationLimit(described):
            model = _model(sections, base, config.normalization)
    except AllocationLimitError as error:
        raise GeotuneError(
            f"{source}: {ADAPTER_CONFIG} describes a model of more than {described:,} numbers, "
            f"which {TENSORS} does not have; the files do not belong together, or were changed",
            code="adapter-mismatch",
            file=folder,
        ) from error
    load_adapter_state(model, tensors, str(folder))
    model.eval()
    return BuiltModel(model, build_task(sections), config.normalization, list(base.notes))


def _own_weights(source: AdapterSource, weights: Path | None) -> Path | None:
    """The weights that an adapter names, if they are a file beside it.

    Raises `GeotuneError` for those of a downloaded adapter that are files of its author.
    """
    if weights is None or is_hub_name(weights):
        return weights
    if str(weights) == BACKBONE:
        folder = source.folder
        if source.reference is not None:
            folder = download(source.reference, BACKBONE).folder
        return folder / BACKBONE if (folder / BACKBONE).is_file() else weights
    if source.reference is not None:
        raise GeotuneError(
            f"{source}: was trained on weights in a file of its author ({weights.name}); give a "
            "copy of it with --weights",
            code="weights-unavailable",
            key="backbone.weights",
        )
    return weights


def score_thresholds(
    settings: PredictionSettings, built: BuiltModel, score: float | None = None
) -> dict[str, float]:
    """Minimum score of a detector's objects by class.

    The requested score, else the best one in validation, else the detector's.
    """
    best = settings.score_thresholds if score is None else {}
    postprocess: Any = built.model.decoder.postprocess
    default: float = postprocess.score_threshold if score is None else score
    thresholds = {name: best.get(name) for name in built.task.classes}
    return {name: default if t is None else t for name, t in thresholds.items()}


def adapter_sections(recipe: Recipe) -> dict[str, Any]:
    """The sections of a recipe from which `load_adapter` builds the model."""
    return recipe.model_dump(mode="json", include={"backbone", "method", "decoder", "task"})


def _model(sections: ModelSections, backbone: Backbone, normalization: Normalization) -> Model:
    if isinstance(sections.task, ReconstructOptions):
        return _reconstruction_model(sections, sections.task, backbone, normalization)
    encoder = create_method(sections.method).attach(backbone)
    num_outputs = build_task(sections).num_outputs
    decoder = DECODERS[sections.decoder.kind].load()(encoder.taps, num_outputs, sections.decoder)
    return Model(normalization, encoder, decoder)


def _reconstruction_model(
    sections: ModelSections,
    task: ReconstructOptions,
    backbone: Backbone,
    normalization: Normalization,
) -> ReconstructionModel:
    original = copy_of_backbone(backbone) if task.teacher_weight else None
    encoder = create_method(sections.method).attach(backbone)
    num_outputs = len(backbone.bands) * backbone.timesteps
    decoder = DECODERS[sections.decoder.kind].load()(encoder.taps, num_outputs, sections.decoder)
    return ReconstructionModel(
        normalization,
        encoder,
        decoder,
        patch=task.patch,
        with_teacher=original is not None,
        teacher=None if original is None else as_teacher(original, encoder),
    )
