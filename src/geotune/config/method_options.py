"""Sections of the tuning methods, read from the methods' own files.

A method is a class with its options as fields; importing it would import torch, which takes
seconds. So its file is parsed instead: the class's docstring and fields make the section, and of
the imports those that are light.
"""

from __future__ import annotations

import ast
from functools import cache, reduce
from importlib.util import find_spec
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, NonNegativeInt

from geotune.config.base import OptionsModel
from geotune.registry import METHODS

_LIGHT = ("typing", "collections", "pydantic", "annotated_types")


class MethodSection(OptionsModel):
    """What every method has."""

    kind: str
    stem_width: NonNegativeInt = Field(
        32, description="width of the convolutional branch on the image; 0: none"
    )
    frozen_precision: Literal["fp32", "bf16", "int8"] = Field(
        "fp32", description="in which frozen weights of the backbone are held"
    )


@cache
def method_section(kind: str) -> type[MethodSection]:
    """The section of the method that is asked for by this name."""
    module, _, name = METHODS[kind].partition(":")
    tree = _parse(module)
    found = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name)
    light = [
        node
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in _LIGHT
    ]
    fields = [node for node in found.body if isinstance(node, ast.AnnAssign) and not _shared(node)]
    names: dict[str, Any] = {}
    code = compile(
        ast.Module([*light, *fields], type_ignores=[]), module, "exec", dont_inherit=True
    )
    exec(code, names)  # noqa: S102 (geotune's own file)
    annotations = names.get("__annotations__", {})
    body = {key: names[key] for key in annotations if key in names}
    return type(
        name,
        (MethodSection,),
        {
            "__module__": __name__,
            "__doc__": ast.get_docstring(found),
            "__annotations__": {"kind": Literal[kind], **annotations},
            "kind": kind,
            **body,
        },
    )


def method_fits(kind: str) -> str:
    """What the method says it can be attached to."""
    module, _, name = METHODS[kind].partition(":")
    found = next(n for n in _parse(module).body if isinstance(n, ast.ClassDef) and n.name == name)
    for node in found.body:
        if isinstance(node, ast.AnnAssign) and _shared(node) and node.value is not None:
            said: str = ast.literal_eval(node.value)
            return said
    return "every backbone"


@cache
def _parse(module: str) -> ast.Module:
    spec = find_spec(module)
    assert spec is not None and spec.origin is not None
    return ast.parse(Path(spec.origin).read_text(encoding="utf-8"))


def _shared(node: ast.AnnAssign) -> bool:
    """Whether an annotated name belongs to the class and is no option."""
    return "ClassVar" in ast.unparse(node.annotation)


if TYPE_CHECKING:
    Method = MethodSection
else:
    _sections = [method_section(kind) for kind in METHODS]
    Method = Annotated[reduce(or_, _sections), Field(discriminator="kind")]
