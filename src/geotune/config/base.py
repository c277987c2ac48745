"""The base class of all options, and the unions of options that the registry makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError

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
    """Annotates a section: its options are those of the registered component of its `kind`."""

    components: Mapping[str, Component]

    def models(self) -> list[type[OptionsModel]]:
        """The options classes in the registry's order."""
        return [component.load_options() for component in self.components.values()]

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        union = reduce(or_, self.models())
        return handler.generate_schema(Annotated[union, Field(discriminator="kind")])
