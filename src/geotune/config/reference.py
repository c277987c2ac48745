"""Every key of a recipe with type, default and meaning, read from the options models.

`geotune list train`, `data`, `decoder` ... and the reference pages of the documentation show it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Literal, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from geotune.config.backbone_options import BackboneOptions
from geotune.config.base import OptionsModel
from geotune.config.data_options import DataSection
from geotune.config.distill_options import DistillOptions
from geotune.config.method_options import PythonMethodOptions
from geotune.config.train_options import TrainOptions
from geotune.registry import DECODERS, METHODS, SPLITTERS, TASKS

Section = Literal["backbone", "method", "decoder", "task", "data", "split", "train", "distill"]
"""Sections of a recipe; `split` is `data.split`."""

REQUIRED = "required"


@dataclass(frozen=True)
class Option:
    """A key of a recipe.

    Attributes:
        key: within its section; a dot separates the keys of a nested mapping.
        type: allowed values in words, such as `number > 0` or `cosine, plateau or constant`.
        default: as written in a recipe; empty if it is null or consists of nested keys, `required`
            if there is none.
        description: its meaning.
    """

    key: str
    type: str
    default: str
    description: str


@dataclass(frozen=True)
class Kind:
    """A kind of a section, such as the decoder `unet`; sections without kinds have one, unnamed."""

    name: str
    description: str
    options: tuple[Option, ...]


def section_kinds(section: Section) -> list[Kind]:
    """The kinds of a section with all their keys, in the registry's order."""
    models: list[type[OptionsModel]]
    if section == "backbone":
        models = [BackboneOptions]
    elif section == "train":
        models = [TrainOptions]
    elif section == "distill":
        models = [DistillOptions]
    elif section == "data":
        models = list(get_args(get_args(DataSection)[0]))
    else:
        registry = {"method": METHODS, "decoder": DECODERS, "task": TASKS, "split": SPLITTERS}
        models = [component.load_options() for component in registry[section].values()]
        models += [PythonMethodOptions] if section == "method" else []
    return [_kind(model) for model in models]


def shared_options(kinds: list[Kind]) -> list[tuple[tuple[str, ...], tuple[Option, ...]]]:
    """The options by the names of the kinds that have them, those of most kinds first."""
    names: dict[Option, list[str]] = {}
    for kind in kinds:
        for option in kind.options:
            names.setdefault(option, []).append(kind.name)
    groups: dict[tuple[str, ...], list[Option]] = {}
    for option, owners in names.items():
        groups.setdefault(tuple(owners), []).append(option)
    ordered = sorted(groups.items(), key=lambda group: -len(group[0]))
    return [(owners, tuple(options)) for owners, options in ordered]


def model_options(model: type[OptionsModel], prefix: str = "") -> tuple[Option, ...]:
    """The keys of an options model, each nested model's after its own; without `kind`."""
    schema = model.model_json_schema()
    found: list[Option] = []
    for name, field in model.model_fields.items():
        if name == "kind":
            continue
        nested = _nested_model(field)
        text = _type(schema["properties"][name])
        key = f"{prefix}{name}"
        found.append(Option(key, text, _default(field), field.description or ""))
        if nested is not None:
            found += model_options(nested, f"{key}.")
    return tuple(found)


def _kind(model: type[OptionsModel]) -> Kind:
    kind = model.model_fields.get("kind")
    description = (model.__doc__ or "").partition("\n")[0].rstrip(".")
    return Kind(str(kind.default) if kind else "", description, model_options(model))


def _nested_model(field: FieldInfo) -> type[OptionsModel] | None:
    """The model of a mapping; None for other types, and for sections of several kinds."""
    if field.discriminator is not None:
        return None
    types = [field.annotation, *get_args(field.annotation)]
    models = [t for t in types if isinstance(t, type) and issubclass(t, OptionsModel)]
    return models[0] if models else None


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return REQUIRED
    value = field.get_default(call_default_factory=True)
    if value is None or isinstance(value, BaseModel):
        return ""
    return _as_yaml(value)


def _as_yaml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, PurePath):
        return value.as_posix()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_as_yaml, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {_as_yaml(v)}" for k, v in value.items()) + "}"
    return '""' if value == "" else str(value)


_FORMATS = {
    "path": "path",
    "date": "date such as 2024-05-31",
    "size": "size such as 8GB",
    "length": "length such as 3 px or 2 m",
    "resolution": "metres per pixel such as 10 m",
}


def _type(schema: dict[str, Any]) -> str:
    """The allowed values of a JSON Schema in words."""
    alternatives = _alternatives(schema)
    if len(alternatives) > 1:
        *others, last = alternatives
        return f"{', '.join(others)} or {last}"
    return alternatives[0]


def _alternatives(schema: dict[str, Any]) -> list[str]:
    """Each kind of allowed value in words, without null."""
    if "anyOf" in schema:
        some = [s for s in schema["anyOf"] if s.get("type") != "null"]
        return list(dict.fromkeys(text for s in some for text in _alternatives(s)))
    if "const" in schema or "enum" in schema:
        return [str(value) for value in schema.get("enum", [schema.get("const")])]
    if schema.get("type") == "boolean":
        return ["true", "false"]
    return [_one_type(schema)]


def _one_type(schema: dict[str, Any]) -> str:
    if "$ref" in schema or "oneOf" in schema:
        return "mapping"
    match schema.get("type"):
        case "integer" | "number" as name:
            return _with_limits(name, schema)
        case "array" if "prefixItems" in schema:
            return f"[{', '.join(_type(s) for s in schema['prefixItems'])}]"
        case "array":
            return f"list of {_plural(_type(schema['items']))}"
        case "object":
            values = schema.get("additionalProperties")
            return f"mapping of name to {_type(values)}" if isinstance(values, dict) else "mapping"
        case "string":
            return _FORMATS.get(schema.get("format", ""), "text")
    return "any value"


def _with_limits(name: str, schema: dict[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    limits = [f"> {above:g}"] if above is not None else [] if low is None else [f"≥ {low:g}"]
    limits += [f"< {below:g}"] if below is not None else [] if high is None else [f"≤ {high:g}"]
    return " ".join([name, " and ".join(limits)]).strip()


def _plural(text: str) -> str:
    first, space, rest = text.partition(" ")
    return f"{first}s{space}{rest}" if first in ("integer", "number") else text
