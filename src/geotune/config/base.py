"""The base class of all options, and the unions of options that the registry makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from geotune.registry import Component

Share = Annotated[float, Field(ge=0, le=1)]
"""A fraction from 0 to 1."""


class OptionsModel(BaseModel):
    """Options of a recipe's section or of a constructor: immutable, unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def invalid(key: str, problem: str) -> PydanticCustomError:
    """The error that a validator raises; `key` is the full path in a recipe."""
    return PydanticCustomError("invalid_option", "{problem}", {"key": key, "problem": problem})


@dataclass(frozen=True, eq=False)
class Registered:
    """Annotates a section: its options are those of the registered component of its `kind`.

    With `from_file` a `kind` can also name a Python file of the user, `python/FILE.py:CLASS`, which
    is not run here.
    """

    components: Mapping[str, Component]
    from_file: type[OptionsModel] | None = None

    def models(self) -> list[type[OptionsModel]]:
        """The options classes in the registry's order, then that of files."""
        own = [] if self.from_file is None else [self.from_file]
        return [*(component.load_options() for component in self.components.values()), *own]

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        models = [component.load_options() for component in self.components.values()]
        union: Any = Annotated[reduce(or_, models), Field(discriminator="kind")]
        registered = handler.generate_schema(union)
        if self.from_file is None:
            return registered
        choices = {"registered": registered, "python": handler.generate_schema(self.from_file)}
        return core_schema.tagged_union_schema(choices, _where_defined)


def _where_defined(section: Any) -> str:
    kind = section.get("kind") if isinstance(section, Mapping) else getattr(section, "kind", "")
    return "python" if str(kind).startswith("python/") else "registered"
