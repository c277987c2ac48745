"""The backbones that can be asked for by name: provider to function."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from pathlib import Path

from geotune.backbones.base import Backbone
from geotune.types import GeotuneError


def _timm(name: str, **options: object) -> Backbone:
    from geotune.backbones.timm import timm_backbone

    return timm_backbone(name, **options)  # type: ignore[arg-type]


def _rslearn(name: str, **options: object) -> Backbone:
    from geotune.backbones.rslearn import galileo_backbone

    return galileo_backbone(name, **options)  # type: ignore[arg-type]


PROVIDERS: dict[str, Callable[..., Backbone]] = {
    "timm": _timm,
    "rslearn": _rslearn,
}


def backbone(
    name: str,
    *,
    bands: Sequence[str] | int,
    weights: Path | str | None = None,
    pretrained: bool = True,
    patch_size: int | None = None,
) -> Backbone:
    """Build a backbone by name, such as `timm/vit_small_patch16_224` or `rslearn/galileo_nano`.

    Args:
        name: provider and model.
        bands: band names in the order of the images' channels, or how many there are.
        weights: a local file or folder, as the provider expects.
        pretrained: false for random weights; never silently so.
        patch_size: for models with a flexible patch.

    Raises `GeotuneError` for an unknown name, missing weights or unknown bands.
    """
    provider, slash, model = name.partition("/")
    if not slash or provider not in PROVIDERS:
        near = difflib.get_close_matches(provider, PROVIDERS, n=1)
        hint = f"; did you mean {near[0]}/{model or '...'}?" if near else ""
        raise GeotuneError(
            f"backbone.name {name!r}: expected provider/model with a provider of "
            f"{', '.join(PROVIDERS)}{hint}"
        )
    names = tuple(f"band{i + 1}" for i in range(bands)) if isinstance(bands, int) else tuple(bands)
    if not names:
        raise GeotuneError("backbone.bands is empty; name at least one band")
    twice = [band for band in dict.fromkeys(names) if names.count(band) > 1]
    if twice:
        raise GeotuneError(f"backbone.bands names {', '.join(twice)} twice; name each band once")
    return PROVIDERS[provider](
        model,
        bands=names,
        weights=None if weights is None else Path(weights),
        pretrained=pretrained,
        patch_size=patch_size,
    )
