"""What pydantic found, in the recipe's own words."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel

Model = type[BaseModel]


def say_fault(fault: Any, values: dict[str, Any], model: Model) -> str:
    """One pydantic fault of a model's values as a sentence with the key's full path."""
    where = list(_path(fault["loc"], values, missing=fault["type"] == "missing"))
    key = ".".join(where)
    if fault["type"] == "extra_forbidden":
        known = sorted(_known_keys(where[:-1], values, model))
        near = difflib.get_close_matches(where[-1], known, n=1, cutoff=0.5)
        prefix = ".".join(where[:-1])
        advice = (
            f"did you mean {'.'.join([*where[:-1], near[0]])}?"
            if near
            else f"known keys of {prefix or f'a {model.__name__.lower()}'}: {', '.join(known)}"
        )
        return f"{key}: unknown key; {advice}"
    if fault["type"] == "missing":
        return f"{key}: is missing"
    if fault["type"] in ("union_tag_invalid", "union_tag_not_found"):
        expected = fault.get("ctx", {}).get("expected_tags", "")
        found = fault.get("ctx", {}).get("tag")
        if found is None:
            at = _models_at(where, values, model)
            kinds = [m.model_fields["kind"].default for m in at]
            return f"{key}.kind: is missing; expected one of {', '.join(kinds)}"
        choices = [tag.strip(" '") for tag in expected.split(",")]
        near = difflib.get_close_matches(str(found), choices, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else ""
        return f"{key}.kind: found {found!r}, expected one of {', '.join(choices)}{hint}"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "value_error":
        return message if not key or message.startswith(key.split(".")[0]) else f"{key}: {message}"
    return f"{key}: found {fault['input']!r}; {message[0].lower()}{message[1:]}"


def _path(location: Sequence[str | int], values: dict[str, Any], missing: bool) -> Iterator[str]:
    """The keys of a pydantic location, without what it adds for the branches of unions.

    Only the last key of a `missing` fault need not be in the values.
    """
    here: Any = values
    entered = True  # just stepped into `here`: a union's tag can only stand first
    for depth, part in enumerate(location):
        if entered and isinstance(here, dict) and here.get("kind") == part:
            entered = False
            continue
        if isinstance(here, list) and isinstance(part, int):
            yield str(part)
            here = here[part] if part < len(here) else None
        elif isinstance(here, dict) and str(part) in map(str, here):
            yield str(part)
            here = here.get(part)
        elif missing and depth == len(location) - 1:
            yield str(part)
        entered = True


def _known_keys(path: Sequence[str], values: dict[str, Any], model: Model) -> set[str]:
    """The keys that the section at `path` knows, by the `kind` it has in `values`."""
    here: Any = values
    for part in path:
        here = here.get(part) if isinstance(here, dict) else None
    models = _models_at(path, values, model)
    return set(_model_of(models, here).model_fields) if models else set()


def _models_at(path: Sequence[str], values: dict[str, Any], model: Model) -> list[Model]:
    """The models of the sections that may stand at `path`."""
    models = [model]
    here: Any = values
    many = False  # sections by name or number: the next part is no field
    for part in path:
        if many:
            many = False
        else:
            annotation = _model_of(models, here).model_fields[part].annotation
            models, many = _sections_in(annotation)
        if isinstance(here, list) and part.isdigit():
            here = here[int(part)] if int(part) < len(here) else None
        else:
            here = here.get(part) if isinstance(here, dict) else None
        if not models:
            return []
    return models


def _sections_in(annotation: Any) -> tuple[list[Model], bool]:
    """The models in a field's type, and whether it holds them in a list or by name."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation], False
    within = [_sections_in(choice) for choice in get_args(annotation)]
    models = [model for found, _ in within for model in found]
    return models, get_origin(annotation) in (list, dict) or any(many for _, many in within)


def _model_of(models: Sequence[Model], section: Any) -> Model:
    """The model of a section's `kind`, else the first."""
    kind = section.get("kind") if isinstance(section, dict) else None
    return next(
        (m for m in models if "kind" in m.model_fields and m.model_fields["kind"].default == kind),
        models[0],
    )
