"""Models on fake or uninitialised tensors, to estimate the memory of a recipe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from geotune.backbones.base import Backbone
from geotune.backbones.create import build_backbone
from geotune.backbones.meta_init import skip_init
from geotune.config import Recipe
from geotune.errors import GeotuneError
from geotune.factory.build_model import build_model
from geotune.memory.tracker import to_fake
from geotune.model import Model
from geotune.types import Normalization


class FakeModelBuilder:
    """Builds fake models on a backbone that is built once, without reading weights.

    Args:
        recipe: resolved recipe, see `resolve_recipe`.
        bands: bands of the images.

    Attributes:
        backbone: uninitialised, but with its published metadata.
    """

    def __init__(self, recipe: Recipe, bands: tuple[str, ...]) -> None:
        self._section = recipe.backbone.model_copy(update={"pretrained": False, "weights": None})
        self._bands = bands
        self.backbone = self._build()

    def fake(self, recipe: Recipe) -> Model:
        """Build a model on fake tensors; if the method reads tensor values, on real ones.

        Raises `GeotuneError` for an invalid combination of components.
        """
        mode = FakeTensorMode()
        try:
            backbone = to_fake(self.backbone, mode)
            assert isinstance(backbone, Backbone)
            with mode, _without_module_to():
                return self._assemble(recipe, backbone)
        except Exception as error:  # some methods read tensor values
            if isinstance(error, GeotuneError) and error.__cause__ is None:
                raise
            return self.real(recipe)

    def real(self, recipe: Recipe) -> Model:
        """Build a model on uninitialised real tensors."""
        with skip_init():
            return self._assemble(recipe, self._build())

    def _build(self) -> Backbone:
        with skip_init():
            return build_backbone(self._section, self._bands)

    def _assemble(self, recipe: Recipe, backbone: Backbone) -> Model:
        bands = backbone.bands
        identity = Normalization(bands, (0.0,) * len(bands), (1.0,) * len(bands))
        model = build_model(recipe, backbone, identity)
        reader = model.encoder.reader
        if reader.calibration_samples:  # their values do not matter
            with torch.no_grad():
                for index in reader.out_indices:
                    reader.observe(index, torch.rand(2, backbone.taps[index].channels, 2, 2))
                reader.calibrate()
        return model


@contextmanager
def _without_module_to() -> Iterator[None]:
    """Disable `Module.to`: peft moves its new modules, which fake tensors do not support."""
    move = nn.Module.to

    def stay(module: nn.Module, *_: Any, **__: Any) -> nn.Module:
        return module

    nn.Module.to = stay  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        nn.Module.to = move  # type: ignore[method-assign]
