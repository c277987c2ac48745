"""From pydantic's errors to messages with the full path of the key."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from geotune.config.base import Registered
from geotune.errors import GeotuneError, RecipeError
from geotune.utils.text import did_you_mean, similar_names

Model = type[BaseModel]

RENAMED_KEYS: dict[str, str] = {
    "method.every": "method.block_stride",
    "method.down": "method.projection_init",
    "method.inside": "method.use_block_internals",
    "method.fuse": "method.output",
    "method.prompts": "method.num_prompts",
    "method.width": "method.bottleneck_dim",
    "method.heads": "method.num_heads",
    "method.stem": "method.stem_width",
    "decoder.finest": "decoder.min_stride",
    "decoder.levels": "decoder.num_levels",
    "task.several": "task.multilabel",
    "task.per": "task.level",
    "task.radius_m": "task.match_radius_m",
    "data.spread": "data.sigma",
    "data.visible": "data.min_visibility",
    "data.focus": "data.rare_class_fraction",
    "data.missing": "data.missing_labels",
    "data.quality.hide": "data.quality.mask_image",
    "train.accumulate": "train.accumulate_steps",
    "train.clip": "train.grad_clip_norm",
    "train.recompute": "train.activation_checkpointing",
}
"""Full path of an old key to the new one."""

RENAMED_KINDS: dict[tuple[str, str], str] = {("decoder.kind", "pooled"): "global_pool"}
"""Key and old value to the new value."""


@dataclass(frozen=True)
class Problem:
    """One invalid key.

    Attributes:
        code: one of `ERROR_CODES`.
        key: its full path, empty for the recipe as a whole.
        text: what was found, what was expected, what to do; starts with the key.
    """

    code: str
    key: str
    text: str


def recipe_error(
    error: ValidationError, model: Model, values: Mapping[str, Any], source: str
) -> RecipeError:
    """One error that lists every invalid key, a line each; code and key are the first's."""
    problems = dict.fromkeys(describe(fault, model, values) for fault in error.errors())
    first = next(iter(problems))
    text = "\n".join(problem.text for problem in problems)
    return RecipeError(f"{source}: {text}", code=first.code, key=first.key or None)


def invalid_options(
    error: ValidationError, model: Model, section: str, values: Mapping[str, Any]
) -> GeotuneError:
    """The same for options given to a constructor, with the keys of the recipe's `section`."""
    problems = dict.fromkeys(describe(fault, model, values, section) for fault in error.errors())
    first = next(iter(problems))
    text = "; ".join(problem.text for problem in problems)
    return GeotuneError(text, code=first.code, key=first.key or None)


def describe(fault: Any, model: Model, values: Mapping[str, Any], section: str = "") -> Problem:
    """Describe one of pydantic's errors in the values of a model."""
    path = list(_path(fault["loc"], values, missing=fault["type"] == "missing"))
    key = ".".join([*filter(None, [section]), *path])
    context = fault.get("ctx", {})
    code = "recipe-invalid"
    if fault["type"] == "extra_forbidden":
        known = _known_keys(path[:-1], values, model)
        new = RENAMED_KEYS.get(key)
        if new is not None and new.rpartition(".")[2] in known:
            code, text = "recipe-key-renamed", f"{key}: renamed to {new}"
        else:
            text = f"{key}: unknown key; {_advice(key, known)}"
    elif fault["type"] == "missing":
        text = f"{key}: missing"
    elif fault["type"] == "union_tag_not_found":
        kinds = [m.model_fields["kind"].default for m in _models_at(path, values, model)]
        key = f"{key}.kind"
        text = f"{key}: missing; expected one of {', '.join(kinds)}"
    elif fault["type"] == "union_tag_invalid":
        key, found = f"{key}.kind", context["tag"]
        if new := RENAMED_KINDS.get((key, found)):
            code, text = "recipe-key-renamed", f"{key}: {found} is renamed to {new}"
        else:
            kinds = [tag.strip(" '") for tag in context["expected_tags"].split(",")]
            hint = did_you_mean(str(found), kinds)
            text = f"{key}: found {found!r}, expected one of {', '.join(kinds)}{hint}"
    elif fault["type"] == "invalid_option":
        key = context["key"] or key
        text = f"{key}: {context['problem']}"
    elif fault["type"] == "value_error":
        text = str(context["error"])
        if key and not text.startswith(key.split(".")[0]):
            text = f"{key}: {text}"
        key = key or (text.partition(":")[0] if re.match(r"[\w.]+:", text) else "")
    else:
        message = fault["msg"].replace("valid tuple", "valid list")
        text = f"{key}: found {fault['input']!r}; {message[0].lower()}{message[1:]}"
        if fault["type"] in ("list_type", "tuple_type") and isinstance(fault["input"], str):
            text += f", such as [{fault['input']}]"
    return Problem(code, key, text)


def _advice(key: str, known: Sequence[str]) -> str:
    parent, _, name = key.rpartition(".")
    near = similar_names(name, known, cutoff=0.8)
    near = near or [word for word in name.split("_") if word in known]  # run_folder: run
    near = near or similar_names(name, known)
    if near:
        return f"did you mean {parent}{'.' if parent else ''}{near[0]}?"
    return f"known keys of {parent or 'a recipe'}: {', '.join(known)}"


def _value_at(path: Sequence[str], values: Any) -> Any:
    for part in path:
        if isinstance(values, list) and part.isdigit():
            values = values[int(part)] if int(part) < len(values) else None
        else:
            values = values.get(part) if isinstance(values, Mapping) else None
    return values


def _path(location: Sequence[str | int], values: Any, *, missing: bool) -> Iterator[str]:
    """The keys of a pydantic location, without what it adds for the branches of unions.

    Only the last key of a `missing` error need not be in the values.
    """
    here = values
    entered = True  # just stepped into `here`: only there can the tag of a union follow
    for depth, part in enumerate(location):
        if entered and isinstance(here, Mapping) and here.get("kind") == part:
            entered = False
            continue
        if isinstance(here, list) and isinstance(part, int):
            yield str(part)
            here = here[part] if part < len(here) else None
        elif isinstance(here, Mapping) and str(part) in map(str, here):
            yield str(part)
            here = here.get(part)
        elif missing and depth == len(location) - 1:
            yield str(part)
        entered = True


def _known_keys(path: Sequence[str], values: Any, model: Model) -> list[str]:
    """The keys of the section at `path`, of the `kind` that it has in `values`."""
    models = _models_at(path, values, model)
    if not models:
        return []
    return sorted(_model_of(models, _value_at(path, values)).model_fields)


def _models_at(path: Sequence[str], values: Any, model: Model) -> list[Model]:
    """The models of the sections that can be at `path`."""
    models = [model]
    many = False  # sections by name or number: the next part is no field
    for depth, part in enumerate(path):
        if many:
            many = False
        else:
            here = _value_at(path[:depth], values)
            models, many = _sections_of(_model_of(models, here).model_fields[part])
        if not models:
            return []
    return models


def _sections_of(field: FieldInfo) -> tuple[list[Model], bool]:
    """The models of a field's sections, and whether it holds them in a list or by name."""
    for item in field.metadata:
        if isinstance(item, Registered):
            return list(item.models()), False
    return _models_in(field.annotation)


def _models_in(annotation: Any) -> tuple[list[Model], bool]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation], False
    within = [_models_in(choice) for choice in get_args(annotation)]
    models = [model for found, _ in within for model in found]
    return models, get_origin(annotation) in (list, dict) or any(many for _, many in within)


def _model_of(models: Sequence[Model], section: Any) -> Model:
    """The model of a section's `kind`, else the first."""
    kind = section.get("kind") if isinstance(section, Mapping) else None
    if str(kind).startswith("python/"):
        return models[-1]
    return next(
        (m for m in models if "kind" in m.model_fields and m.model_fields["kind"].default == kind),
        models[0],
    )
