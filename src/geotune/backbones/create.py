"""Build a backbone by its name, `provider/model`."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Literal

import torch

from geotune.backbones.base import Backbone
from geotune.backbones.model_info import ModelInfo
from geotune.backbones.spec import BackboneSpec, Combine, Metadata, band_names
from geotune.errors import GeotuneError

PROVIDERS: dict[str, str] = {
    "timm": "geotune.backbones.timm:timm_backbone",
    "terratorch": "geotune.backbones.terratorch.terratorch_provider:terratorch_backbone",
    "torchgeo": "geotune.backbones.torchgeo.torchgeo_provider:torchgeo_backbone",
    "rslearn": "geotune.backbones.rslearn.rslearn_provider:rslearn_backbone",
    "python": "geotune.backbones.custom:python_backbone",
}
"""Each provider's build function, imported on first use."""


def backbone(
    name: str,
    *,
    bands: Sequence[str] | int | Mapping[str, Sequence[str]],
    weights: Path | str | None = None,
    pretrained: bool = True,
    patch_size: int | None = None,
    timesteps: int = 1,
    combine: Combine = "mean",
    metadata: Sequence[Metadata] = (),
    wavelengths: Mapping[str, float] | None = None,
    gsd: float | None = None,
    new_bands: Literal["refuse", "mean"] = "refuse",
) -> Backbone:
    """Build a backbone by name, such as `timm/vit_small_patch16_224` or `rslearn/galileo_nano`.

    Args:
        name: provider and model.
        bands: band names in the order of the image channels, or their number; by modality for
            models of several.
        weights: a local file or folder in the provider's format.
        pretrained: false for random weights.
        patch_size: in pixels, for models with a flexible patch.
        timesteps: number of dates of an image, for models with a time axis.
        combine: how the maps of the dates are combined: `mean`, `max`, `last` or `concat`.
        metadata: inputs beside the images: `time`, `location`.
        wavelengths: of bands that the model does not know by name, in micrometres.
        gsd: ground sampling distance in metres, for models that take it.
        new_bands: `refuse` bands that the model was not pretrained with, or initialise them from
            the `mean` of the known ones.

    Raises `GeotuneError` for an unknown name, unavailable weights, unknown bands, or an option
    that the model does not support.
    """
    provider, slash, model = name.partition("/")
    if not slash or provider not in PROVIDERS:
        near = difflib.get_close_matches(provider, PROVIDERS, n=1)
        hint = f"; did you mean {near[0]}/{model or '...'}?" if near else ""
        raise GeotuneError(
            f"backbone.name {name!r}: expected provider/model with a provider of "
            f"{', '.join(PROVIDERS)}{hint}",
            code="backbone-unknown",
            key="backbone.name",
        )
    spec = BackboneSpec(
        name,
        band_names(bands),
        {key: tuple(value) for key, value in bands.items()} if isinstance(bands, Mapping) else {},
        weights=None if weights is None else Path(weights),
        pretrained=pretrained,
        patch_size=patch_size,
        timesteps=timesteps,
        combine=combine,
        metadata=tuple(metadata),
        wavelengths=dict(wavelengths or {}),
        gsd=gsd,
        new_bands=new_bands,
    )
    module, _, function = PROVIDERS[provider].partition(":")
    build: Callable[[BackboneSpec], Backbone] = getattr(import_module(module), function)
    # random weights must be reproducible, or an adapter could not be loaded in another process
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build(spec)


def model_info(name: str) -> ModelInfo | None:
    """Published facts about a backbone, without building it; None if the provider has none."""
    provider, _, model = name.partition("/")
    if provider not in PROVIDERS:
        return None
    module = import_module(PROVIDERS[provider].partition(":")[0])
    models: dict[str, ModelInfo] = getattr(module, "MODELS", {})
    return models.get(model)
