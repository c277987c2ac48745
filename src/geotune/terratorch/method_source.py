"""A source of TerraTorch's registry of backbones: `geotune_METHOD__BACKBONE`.

The name after `__` is TerraTorch's own, or geotune's with `_` after the provider: `timm_resnet18`,
`rslearn_galileo_nano`.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from typing import Any

from geotune.errors import GeotuneError
from geotune.registry import BACKBONE_PROVIDERS, METHODS
from geotune.terratorch.names import PREFIX, SEPARATOR, split_method


def register() -> None:
    """Add geotune's methods to TerraTorch's backbones; does nothing the second time."""
    from terratorch.registry import BACKBONE_REGISTRY

    if PREFIX not in BACKBONE_REGISTRY.keys():  # noqa: SIM118 (iterating gives other names)
        BACKBONE_REGISTRY.register_source(PREFIX, MethodSource())


class MethodSource(Set[str]):
    """Names `METHOD__BACKBONE`, and the encoders that they stand for."""

    def __contains__(self, name: object) -> bool:
        parts = split_method(str(name))
        return parts is not None and _is_known(parts[1])

    def __iter__(self) -> Iterator[str]:
        from geotune.backbones.terratorch.terratorch_provider import MODELS

        return (f"{method}{SEPARATOR}{model}" for method in METHODS for model in MODELS)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(METHODS)} methods of geotune)"

    def build(self, name: str, *_: Any, **options: Any) -> Any:
        """Build an encoder from the options that follow `backbone_` in a configuration.

        Raises TerraTorch's `InvalidModelError` for a name of another source, and `GeotuneError` for
        an unknown backbone, an unknown option and an option that does not fit.
        """
        from terratorch.utils import InvalidModelError

        parts = split_method(name)
        if parts is None:
            raise InvalidModelError(
                f"geotune_{name}: expected geotune_METHOD__BACKBONE, where METHOD is one of "
                f"{', '.join(METHODS)}"
            )
        from geotune.terratorch.encoder import build_encoder

        try:
            return build_encoder(parts[0], geotune_name(parts[1]), options)
        except GeotuneError as error:
            section, dot, option = str(error.key).partition(".")
            given = dot and section in {"method", "backbone"}
            hint = f" ({error.key} is backbone_{option} in TerraTorch)" if given else ""
            raise GeotuneError(
                f"{PREFIX}_{name}: {error}{hint}", code=error.code, key=error.key, file=error.file
            ) from error


def geotune_name(model: str) -> str:
    """geotune's name of a backbone: `terratorch/prithvi_eo_v2_300`, `timm/resnet18`."""
    provider, _, rest = model.partition("_")
    if rest and provider in BACKBONE_PROVIDERS:
        return f"{provider}/{rest}"
    import timm
    from terratorch.registry import TERRATORCH_BACKBONE_REGISTRY

    if model not in TERRATORCH_BACKBONE_REGISTRY and timm.is_model(model):
        return f"timm/{model}"
    return f"terratorch/{model}"


def _is_known(model: str) -> bool:
    from terratorch.registry import TERRATORCH_BACKBONE_REGISTRY

    name = geotune_name(model)
    return not name.startswith("terratorch/") or model in TERRATORCH_BACKBONE_REGISTRY
