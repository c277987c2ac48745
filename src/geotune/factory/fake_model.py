"""Models of a recipe and of its variations, without contents: for asking what they would take."""

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
    """Drafts over one backbone, which is built once; no weights are read.

    Args:
        recipe: whose backbone it is, complete.
        bands: of the images.

    Attributes:
        backbone: empty; what is published of it is there.
    """

    def __init__(self, recipe: Recipe, bands: tuple[str, ...]) -> None:
        self._section = recipe.backbone.model_copy(update={"pretrained": False, "weights": None})
        self._bands = bands
        self.backbone = self._build()

    def fake(self, recipe: Recipe) -> Model:
        """On fake tensors; real and empty where a method cannot be attached to such.

        Raises `GeotuneError` where the recipe's parts do not fit together.
        """
        mode = FakeTensorMode()
        try:
            backbone = to_fake(self.backbone, mode)
            assert isinstance(backbone, Backbone)
            with mode, _staying_put():
                return self._assemble(recipe, backbone)
        except Exception as error:  # some look at values
            if isinstance(error, GeotuneError) and error.__cause__ is None:
                raise
            return self.real(recipe)

    def real(self, recipe: Recipe) -> Model:
        """On real tensors, whose contents are by chance."""
        with skip_init():
            return self._assemble(recipe, self._build())

    def _build(self) -> Backbone:
        with skip_init():
            return build_backbone(self._section, self._bands)

    def _assemble(self, recipe: Recipe, backbone: Backbone) -> Model:
        bands = backbone.bands
        as_it_is = Normalization(bands, (0.0,) * len(bands), (1.0,) * len(bands))
        model = build_model(recipe, backbone, as_it_is)
        reader = model.encoder.reader
        if reader.calibration_samples:  # what it is fitted to does not matter
            widths = [backbone.taps[i].channels for i in reader.out_indices]
            maps = (torch.rand(2, width, 2, 2) for width in widths)
            with torch.no_grad():
                reader.calibrate(dict(zip(reader.out_indices, maps, strict=True)))
        return model


@contextmanager
def _staying_put() -> Iterator[None]:
    """No module is moved: peft moves what it makes to where it is, which fake tensors refuse."""
    move = nn.Module.to

    def stay(module: nn.Module, *_: Any, **__: Any) -> nn.Module:
        return module

    nn.Module.to = stay  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        nn.Module.to = move  # type: ignore[method-assign]
