"""Start a training from the tensors of an earlier run (`train.start_from`, `fit --from`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from geotune.adapter_config import AdapterConfig, load_adapter_config
from geotune.adapter_io import adapter_state, check_base_model, load_adapter_state, read_tensors
from geotune.config import Recipe, parse_sections
from geotune.config.task_options import ReconstructOptions
from geotune.errors import GeotuneError
from geotune.factory.build_model import BuiltModel, adapter_sections
from geotune.hub.download import AdapterSource
from geotune.training.check_teacher import TASK_KEYS
from geotune.training.run_dir import changed_values, flatten_keys
from geotune.utils.text import join_some, pluralize

FREE_OPTIONS = ("dropout", "frozen_precision", "stem_width")
"""Options of methods and decoders on which the meaning of equal tensors does not depend."""


def start_from_adapter(built: BuiltModel, recipe: Recipe, source: AdapterSource) -> str | None:
    """Load the trained tensors of a run or an adapter into the model of a recipe.

    Of a pretraining, those of the method are taken, not those of its decoder: the returned note
    says which. Raises `GeotuneError` if they belong to another backbone, or to another method,
    decoder or task: with another option such as `alpha`, equal tensors are another model.
    """
    config = load_adapter_config(source.folder)
    pretrained = config.sections["task"].get("kind") == "reconstruct"
    if pretrained and not isinstance(recipe.task, ReconstructOptions):
        return _start_from_pretraining(built, recipe, source, config)
    load_whole_adapter(built, recipe, source)
    if built.normalization != config.normalization:
        return (
            f"train.start_from {source}: its images were normalised with other values than those "
            "of this recipe, so that the first epochs have to adapt to them"
        )
    return None


def load_whole_adapter(built: BuiltModel, recipe: Recipe, source: AdapterSource) -> None:
    """Load all trained tensors of a run or an adapter into the model of a recipe.

    Raises `GeotuneError` if they belong to another backbone, or to another method, decoder or task.
    """
    config = load_adapter_config(source.folder)
    check_base_model(built.backbone, config, source.folder)
    if changed := _changed_options(config, recipe, ("method", "decoder", "task"), source):
        raise GeotuneError(
            f"train.start_from {source}: of another model than the recipe's "
            f"({join_some(changed, 5)}); start from an adapter with its method, decoder and task, "
            "or give the recipe those of the adapter",
            code="adapter-mismatch",
            key=changed[0].partition(":")[0],
            file=source.folder,
        )
    load_adapter_state(
        built.model,
        read_tensors(source.folder, config),
        f"train.start_from {source}",
        expected_by="the recipe",
        advice="start from an adapter with the recipe's method, decoder and classes",
    )


def _changed_options(
    config: AdapterConfig, recipe: Recipe, sections: Sequence[str], source: AdapterSource
) -> list[str]:
    """Options by which tensors of an adapter mean something else in a recipe, with both values.

    Not compared: dropout, the precision of frozen weights, losses and the like, and options that
    are left to geotune in one of the two.
    """
    saved = parse_sections(config.sections, str(source.folder)).model_dump(mode="json")
    own = adapter_sections(recipe)
    before, now = ({name: values[name] for name in sections} for values in (saved, own))
    automatic = {
        key
        for values in (before, now)
        for key, value in flatten_keys(values).items()
        if value is None
    }
    return [
        change
        for change in changed_values(before, now)
        for key in [change.partition(":")[0]]
        for section, _, name in [key.partition(".")]
        if key not in automatic
        and (name in TASK_KEYS if section == "task" else name not in FREE_OPTIONS)
    ]


def _start_from_pretraining(
    built: BuiltModel, recipe: Recipe, source: AdapterSource, config: AdapterConfig
) -> str:
    kind = recipe.method.kind
    check_base_model(built.backbone, config, source.folder)
    state = read_tensors(source.folder, config)
    own = {n: t for n, t in adapter_state(built.model).items() if n.startswith("encoder.")}
    shared = {name: tensor for name, tensor in state.items() if name in own}
    before: Any = config.sections["method"].get("kind")
    other = [name for name, tensor in shared.items() if tensor.shape != own[name].shape]
    options = _changed_options(config, recipe, ("method",), source)
    problem = ""
    if before != kind:
        problem = f"was pretrained with method.kind {before}, but the recipe has {kind}"
    elif not shared:
        problem = "has no tensor that the model of the recipe trains"
    elif other:
        problem = f"has tensors of another shape: {join_some(other, 5)}"
    elif options:
        problem = f"was pretrained with other options: {join_some(options, 5)}"
    if problem:
        raise GeotuneError(
            f"train.start_from {source}: {problem}; use the method and its options of the "
            "pretraining",
            code="adapter-mismatch",
            key="method.kind" if before != kind else "train.start_from",
            file=source.folder,
        )
    built.model.load_state_dict(shared, strict=False)
    left = sorted({_part(name) for name in state.keys() - shared.keys()})
    new = sorted({_part(name) for name in own.keys() - shared.keys()})
    note = (
        f"train.start_from {source}: {pluralize(len(shared), 'tensor')} of {kind} taken from its "
        f"pretraining ({sum(t.numel() for t in shared.values()):,} numbers)"
    )
    if left:
        note += f"; not taken: {join_some(left, 5)}"
    if new:
        note += f"; not pretrained: {join_some(new, 5)}"
    return note


def _part(name: str) -> str:
    """The part of the model that a tensor belongs to, such as `encoder.stem` or `decoder`."""
    first, _, rest = name.partition(".")
    return f"{first}.{'.'.join(rest.split('.')[:2])}" if first == "encoder" else first
