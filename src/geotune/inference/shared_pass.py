"""One pass of a frozen backbone for several models.

    images --> backbone --> taps --> reader, decoder of model 1
                                 --> reader, decoder of model 2
                                 ...

Each model asks for its maps when it needs them. The first one to ask has the maps of all computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from geotune.model import Model, encode_models
from geotune.types import FeatureMaps


class SharedPass:
    """The maps of models with one frozen backbone, each computed once for all.

    Maps are held until each model has asked for its own, so all models must ask.

    Args:
        models: with the same backbone and normalisation.
    """

    def __init__(self, models: Sequence[Model]) -> None:
        self._models = models
        self._held: list[_Held] = []

    def encode(
        self, index: int, images: Tensor, **known: Tensor
    ) -> tuple[FeatureMaps, tuple[int, int]]:
        """`Model.encode` of the model of an index."""
        held = next((each for each in self._held if each.has(index, images, known)), None)
        if held is None:
            maps, size = encode_models(self._models, images, **known)
            held = _Held(images, known, dict(enumerate(maps)), size)
            self._held.append(held)
        own = held.maps.pop(index)
        if not held.maps:
            self._held.remove(held)
        return own, held.size


@dataclass(frozen=True, eq=False)
class _Held:
    """The maps of the models that have not asked for them yet, by index."""

    images: Tensor
    known: Mapping[str, Tensor]
    maps: dict[int, FeatureMaps]
    size: tuple[int, int]

    def has(self, index: int, images: Tensor, known: Mapping[str, Tensor]) -> bool:
        return (
            index in self.maps
            and known.keys() == self.known.keys()
            and _same_bits(images, self.images)
            and all(_same_bits(value, self.known[name]) for name, value in known.items())
        )


def _same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether tensors are equal, missing values included, which are not equal as numbers."""
    if one is other:
        return True
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    kind = {4: torch.int32, 8: torch.int64}[one.element_size()]
    return torch.equal(one.view(kind), other.view(kind))
