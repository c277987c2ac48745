"""The backbones that can be asked for by name: provider to function."""

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
"""The function that builds a provider's backbones; imported when one of its names is asked for."""


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
        bands: band names in the order of the images' channels, or how many there are; by modality
            for models of several.
        weights: a local file or folder, as the provider expects.
        pretrained: false for random weights; never silently so.
        patch_size: for models with a flexible patch.
        timesteps: how many dates an image has, for models with a time axis.
        combine: how the maps of the dates become one: `mean`, `max`, `last`, or `concat`.
        metadata: what the model is to be given beside the images: `time`, `location`.
        wavelengths: of bands that the model does not know by name, in micrometres.
        gsd: ground sampling distance in metres, for models that take it.
        new_bands: `refuse` bands that the model has never seen, or start them from the `mean` of
            those it knows.

    Raises `GeotuneError` for an unknown name, missing weights, unknown bands, and an option that
    the model does not take.
    """
    provider, slash, model = name.partition("/")
    if not slash or provider not in PROVIDERS:
        near = difflib.get_close_matches(provider, PROVIDERS, n=1)
        hint = f"; did you mean {near[0]}/{model or '...'}?" if near else ""
        raise GeotuneError(
            f"backbone.name {name!r}: expected provider/model with a provider of "
            f"{', '.join(PROVIDERS)}{hint}"
        )
    request = BackboneSpec(
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
    # A random backbone must be the same in every process, or its adapter could not be loaded.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build(request)


def facts(name: str) -> ModelInfo | None:
    """What is known of a backbone without building it; None where nothing is written down."""
    provider, _, model = name.partition("/")
    if provider not in PROVIDERS:
        return None
    module = import_module(PROVIDERS[provider].partition(":")[0])
    known: dict[str, ModelInfo] = getattr(module, "MODELS", {})
    return known.get(model)
