"""Build a backbone by its name, `provider/model`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from pydantic import ValidationError

from geotune.backbones.base import Backbone
from geotune.backbones.continued import build_continued, read_header
from geotune.backbones.model_info import ModelInfo
from geotune.backbones.spec import BackboneSpec, Bands
from geotune.config.backbone_options import BackboneOptions, Combine, Metadata
from geotune.config.error_messages import invalid_options
from geotune.errors import GeotuneError
from geotune.hub.download import backbone_file
from geotune.registry import BACKBONE_PROVIDERS
from geotune.utils.text import similar_names


def backbone(
    name: str,
    *,
    bands: Bands,
    weights: Path | str | None = None,
    pretrained: bool = True,
    patch_size: int | None = None,
    timesteps: int = 1,
    combine: Combine = "mean",
    metadata: Sequence[Metadata] = (),
    wavelengths: Mapping[str, float] | None = None,
    gsd: float | None = None,
    new_bands: Literal["refuse", "mean"] = "refuse",
    weights_bands: Sequence[str] | None = None,
) -> Backbone:
    """Build a backbone by name, such as `timm/vit_small_patch16_224` or `rslearn/galileo_nano`.

    Args:
        name: provider and model.
        bands: band names in the order of the image channels, or their number; by modality for
            models of several.
        weights: a local file or folder in the provider's format, `backbone.safetensors` of
            `geotune pretrain`, or `hub:ORG/NAME[@REVISION]`, to which such a backbone was pushed.
        pretrained: false for random weights.
        patch_size: in pixels, for models with a flexible patch.
        timesteps: number of dates of an image, for models with a time axis.
        combine: how the maps of the dates are combined: `mean`, `max`, `last` or `concat`.
        metadata: inputs beside the images: `time`, `location`.
        wavelengths: of bands that the model does not know by name, in micrometres.
        gsd: ground sampling distance in metres, for models that take it.
        new_bands: `refuse` bands that the model was not pretrained with, or initialise them from
            the `mean` of the known ones.
        weights_bands: band names of the weights' first layer, for timm weights of other bands.

    Raises `GeotuneError` for an unknown name, unavailable weights, unknown bands, or an option
    that the model does not support.
    """
    values = {
        "name": name,
        "bands": bands,
        "weights": weights,
        "pretrained": pretrained,
        "patch_size": patch_size,
        "timesteps": timesteps,
        "combine": combine,
        "metadata": metadata,
        "wavelengths": wavelengths,
        "gsd": gsd,
        "new_bands": new_bands,
        "weights_bands": weights_bands,
    }
    try:
        options = BackboneOptions.model_validate(values)
    except ValidationError as error:
        raise invalid_options(error, BackboneOptions, "backbone", values) from error
    return build_backbone(options)


def build_backbone(options: BackboneOptions, bands: Sequence[str] | None = None) -> Backbone:
    """Build a backbone from its options, for images with these bands if given; see `backbone`."""
    provider, slash, model = options.name.partition("/")
    if not slash or provider not in BACKBONE_PROVIDERS:
        near = similar_names(provider, BACKBONE_PROVIDERS)
        hint = f"; did you mean {near[0]}/{model or '...'}?" if near else ""
        raise GeotuneError(
            f"backbone.name {options.name!r}: expected provider/model with a provider of "
            f"{', '.join(BACKBONE_PROVIDERS)}{hint}",
            code="backbone-unknown",
            key="backbone.name",
        )
    spec = BackboneSpec.from_options(options, bands)
    origin = str(spec.weights)
    if spec.weights is not None:
        path, reference = backbone_file(spec.weights)
        spec, origin = spec.model_copy(update={"weights": path}), str(reference or path)
        if reference is not None and read_header(path) is None:
            raise GeotuneError(
                f"{reference}: {path.name} does not say which model it belongs to, so geotune "
                "pretrain did not write it; name another repository",
                code="hub-invalid",
                key="backbone.weights",
            )
    build: Callable[[BackboneSpec], Backbone] = BACKBONE_PROVIDERS[provider].load()
    # random weights must be reproducible, or an adapter could not be loaded in another process
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        continued = None if spec.weights is None else read_header(spec.weights)
        return build(spec) if continued is None else build_continued(build, spec, continued, origin)


def model_info(name: str) -> ModelInfo | None:
    """Published facts about a backbone, without building it; None if the provider has none."""
    provider, _, model = name.partition("/")
    if provider not in BACKBONE_PROVIDERS:
        return None
    models: dict[str, ModelInfo] = getattr(BACKBONE_PROVIDERS[provider].module(), "MODELS", {})
    return models.get(model)
