"""The only place where a recipe becomes objects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from geotune.adapter import load_adapter_state, read_card, read_tensors, require_base
from geotune.backbones.base import Backbone
from geotune.backbones.catalog import backbone as make_backbone
from geotune.data.chips import open_chips
from geotune.data.prepare import DataParts, prepare
from geotune.data.scene import Scene
from geotune.data.scenes import open_scenes
from geotune.data.splits import Parts, split_at_random, split_by_group, split_by_list
from geotune.data.synthetic import CLASSES as SYNTHETIC_CLASSES
from geotune.data.synthetic import labels_path, write_scenes
from geotune.decoders.catalog import DECODERS
from geotune.methods.catalog import METHODS
from geotune.model import Model
from geotune.normalize import choose_normalization
from geotune.recipe import Recipe, RecipeError, Section, parse_sections
from geotune.tasks.segment import Segment
from geotune.types import BandStatistics, GeotuneError, Normalization

SPLITS: dict[str, Callable[..., Parts]] = {
    "list": split_by_list,
    "random": split_at_random,
    "group": split_by_group,
}
TASKS: dict[str, Callable[..., Segment]] = {"segment": Segment}


@dataclass(frozen=True)
class Built:
    """A recipe's objects, ready to be trained.

    Attributes:
        notes: what the user should know about how weights, bands and normalisation were fitted.
    """

    model: Model
    task: Segment
    normalization: Normalization
    notes: list[str]

    @property
    def backbone(self) -> Backbone:
        """The model's backbone."""
        return self.model.encoder.backbone


def values_of(section: Section) -> dict[str, Any]:
    """A section's values for the constructor it feeds: all but `kind`."""
    return {name: value for name, value in section if name != "kind"}


def build_data(recipe: Recipe, progress: Callable[[Scene], None] | None = None) -> DataParts:
    """Open, split, read and check the recipe's data. Raises `GeotuneError` for what is wrong."""
    data = recipe.data
    parts = SPLITS[data.split.kind](_open(recipe), **values_of(data.split))
    return prepare(
        parts,
        window=data.window,
        samples=data.samples,
        focus=data.focus,
        augment=data.augment,
        brightness=data.brightness,
        seed=recipe.train.seed,
        progress=progress,
    )


def _open(recipe: Recipe) -> list[Scene]:
    data = recipe.data
    bands = recipe.backbone.bands
    labelled: dict[str, Any] = {
        "classes": recipe.task.classes,
        "bands": data.bands,
        "wanted_bands": bands if isinstance(bands, list) else None,
        "nodata": data.nodata,
        "class_values": data.class_values,
        "ignore_values": data.ignore_values,
    }
    if data.kind == "chips":
        scenes = open_chips(
            images=data.images,
            masks=data.masks,
            image_suffix=data.image_suffix,
            mask_suffix=data.mask_suffix,
            **labelled,
        )
    elif data.kind == "scenes":
        scenes = open_scenes(
            scenes=data.scenes,
            labels=data.labels,
            class_field=data.class_field,
            unlabelled=data.unlabelled,
            **labelled,
        )
    else:
        if tuple(recipe.task.classes) != tuple(SYNTHETIC_CLASSES):
            raise GeotuneError(
                f"task.classes: synthetic scenes have {', '.join(SYNTHETIC_CLASSES)}, "
                f"found {', '.join(recipe.task.classes)}"
            )
        images = write_scenes(data.folder, count=data.count, size=data.size, seed=data.seed)
        scenes = open_scenes(
            scenes=[str(path) for path in images],
            labels=str(labels_path(images[0])).replace(images[0].stem, "{stem}"),
            **labelled,
        )
    found = scenes[0].raster.bands
    if isinstance(bands, int) and len(found) != bands:
        raise GeotuneError(
            f"backbone.bands: expected {bands}, but the files have {len(found)}: {', '.join(found)}"
        )
    return scenes


def build_backbone(recipe: Recipe, bands: tuple[str, ...]) -> Backbone:
    """The recipe's backbone for these bands."""
    return make_backbone(**{**values_of(recipe.backbone), "bands": bands})


def build_training(recipe: Recipe, statistics: BandStatistics) -> Built:
    """The model to train, with initial weights that are a function of the recipe's seed."""
    backbone = build_backbone(recipe, statistics.bands)
    normalization, notes = choose_normalization(backbone, statistics, recipe.data.normalize)
    torch.manual_seed(recipe.train.seed)
    notes = [*backbone.notes, *notes]
    if backbone.random_weights:
        notes.insert(0, f"{backbone.name} has random weights: nothing was pretrained")
    return Built(
        _model(recipe.method, recipe.decoder, recipe.task, backbone, normalization),
        TASKS[recipe.task.kind](**values_of(recipe.task)),
        normalization,
        notes,
    )


def load_adapter(folder: Path | str, weights: Path | str | None = None) -> Built:
    """The trained model of a run folder, or of a folder that holds an adapter's two files.

    Args:
        folder: with `adapter.json` and `adapter.safetensors`.
        weights: of the base model, where they lie elsewhere than when it was trained.

    Raises `GeotuneError` for files that do not belong together and for another base model.
    """
    folder = Path(folder)
    card = read_card(folder)
    try:
        sections = parse_sections(card.sections, str(folder))
    except RecipeError as error:
        raise GeotuneError(str(error)) from error
    backbone = make_backbone(
        **{
            **values_of(sections.backbone),
            "bands": card.normalization.bands,
            "weights": weights if weights is not None else sections.backbone.weights,
        }
    )
    require_base(backbone, card, folder)
    model = _model(sections.method, sections.decoder, sections.task, backbone, card.normalization)
    load_adapter_state(model, read_tensors(folder, card), str(folder))
    model.eval()
    task = TASKS[sections.task.kind](**values_of(sections.task))
    return Built(model, task, card.normalization, list(backbone.notes))


def card_sections(recipe: Recipe) -> dict[str, Any]:
    """What of a recipe an adapter needs: how to build the model again."""
    return recipe.model_dump(mode="json", include={"backbone", "method", "decoder", "task"})


def _model(
    method: Section,
    decoder: Section,
    task: Section,
    backbone: Backbone,
    normalization: Normalization,
) -> Model:
    encoder = METHODS[method.kind](**values_of(method)).attach(backbone)  # type: ignore[attr-defined]
    outputs = TASKS[task.kind](**values_of(task)).num_outputs  # type: ignore[attr-defined]
    head = DECODERS[decoder.kind](encoder.taps, outputs, **values_of(decoder))  # type: ignore[attr-defined]
    return Model(normalization, encoder, head)
