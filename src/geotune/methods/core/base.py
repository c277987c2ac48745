"""The contract of a tuning method: a backbone in, an encoder out.

A method decides what changes in the backbone (or what is inserted into it) and how its taps are
read (`reader.py`). Methods are registered in `registry.py`; `docs/how-to/extending.md` shows how
to add one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Self, cast

from pydantic import ValidationError

from geotune.backbones.base import Backbone
from geotune.config.error_messages import invalid_options
from geotune.config.method_options import MethodOptions
from geotune.methods.core.encoder import Encoder


class Method(MethodOptions, ABC):
    """A tuning method: its options, and `attach`.

    A subclass inherits its options from an options class, `class Est(EstOptions, Method)`.
    Raises `GeotuneError` for an unknown option and for an invalid value.
    """

    if not TYPE_CHECKING:  # type checkers see the options

        def __init__(self, **options: Any) -> None:
            try:
                super().__init__(**options)
            except ValidationError as error:
                raise invalid_options(error, type(self), "method", options) from error

    @classmethod
    def from_options(cls, options: MethodOptions) -> Self:
        """Create the method from a recipe's options, which are valid already."""
        method = cls.model_construct(options.model_fields_set, **dict(options))
        return cast(Self, method)

    @abstractmethod
    def attach(self, backbone: Backbone) -> Encoder:
        """Adapt the backbone in place and return its encoder.

        Raises `GeotuneError` if the method or its options do not fit the backbone.
        """


def attach(backbone: Backbone, method: Method) -> Encoder:
    """Adapt a backbone by a method: `attach(backbone("timm/resnet18", bands=6), Est())`."""
    return method.attach(backbone)
