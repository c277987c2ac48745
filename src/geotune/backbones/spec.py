"""The options of a backbone, common to all providers."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from geotune.errors import GeotuneError

Combine = Literal["mean", "max", "concat", "last"]
Metadata = Literal["time", "location"]


@dataclass(frozen=True)
class BackboneSpec:
    """Options of a backbone.

    Attributes:
        name: provider and model.
        bands: names of the image channels, in order.
        modalities: bands of each modality, if given by modality; channels are in this order.
        weights: local file or folder.
        pretrained: false for random weights.
        patch_size: in pixels, for models with a flexible patch.
        timesteps: number of dates of an image.
        combine: how the maps of the dates are combined.
        metadata: which of time and location the model receives.
        wavelengths: of bands, in micrometres, for models that take them.
        gsd: ground sampling distance in metres, for models that take it.
        new_bands: for bands that the model was not pretrained with: `refuse` them, or initialise
            them from the `mean` of the known ones.
    """

    name: str
    bands: tuple[str, ...]
    modalities: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    weights: Path | None = None
    pretrained: bool = True
    patch_size: int | None = None
    timesteps: int = 1
    combine: Combine = "mean"
    metadata: tuple[Metadata, ...] = ()
    wavelengths: Mapping[str, float] = field(default_factory=dict)
    gsd: float | None = None
    new_bands: Literal["refuse", "mean"] = "refuse"

    @property
    def model(self) -> str:
        """The model's name without the provider."""
        return self.name.partition("/")[2]

    @property
    def loads_weights(self) -> bool:
        """Whether weights are loaded."""
        return self.pretrained or self.weights is not None

    def not_installed_error(self, error: ImportError) -> GeotuneError:
        """The error for a provider whose package cannot be imported."""
        return GeotuneError(
            f"backbone.name {self.name}: {error.name} is not installed; "
            f"install it with: pip install 'geotune[{self.name.partition('/')[0]}]'",
            code="dependency-missing",
            key="backbone.name",
        )

    def unknown_model_error(self, models: Iterable[str]) -> GeotuneError:
        """The error for a name that is not among the provider's `models`; suggests similar ones."""
        provider, _, model = self.name.partition("/")
        by_lower = {name.lower(): name for name in models}
        query = model.partition(".")[0].lower()  # without timm's tag of the weights
        similar = [name for name in by_lower if query and name.startswith(f"{query}_")][:20]
        similar = similar or difflib.get_close_matches(query, by_lower, n=3)
        names = ", ".join(f"{provider}/{by_lower[name]}" for name in similar)
        return GeotuneError(
            f"backbone.name {self.name}: unknown model" + (f"; similar: {names}" if names else ""),
            code="backbone-unknown",
            key="backbone.name",
        )

    def check_num_dates(self, maximum: int) -> None:
        """Raise `GeotuneError` if `timesteps` exceeds the model's maximum."""
        if self.timesteps > maximum:
            raise GeotuneError(
                f"backbone.timesteps {self.timesteps}: {self.name} supports up to {maximum} dates",
                code="backbone-option",
                key="backbone.timesteps",
            )

    def allow_only(self, *supported: str, metadata: Collection[str] = ()) -> None:
        """Raise `GeotuneError` if an option is set that the model does not support.

        Args:
            supported: of `patch_size`, `timesteps`, `modalities`, `wavelengths`, `gsd`,
                `new_bands`.
            metadata: which of `time` and `location` the model supports.
        """
        given = {
            "patch_size": (self.patch_size, "has a fixed patch size"),
            "timesteps": (self.timesteps if self.timesteps > 1 else None, "supports a single date"),
            "modalities": (tuple(self.modalities), "has a single modality"),
            "wavelengths": (dict(self.wavelengths), "does not use wavelengths"),
            "gsd": (self.gsd, "does not use the ground sampling distance"),
            "new_bands": (
                self.new_bands if self.new_bands != "refuse" else None,
                "does not need it",
            ),
        }
        for option, (value, reason) in given.items():
            if value and option not in supported:
                key = "bands" if option == "modalities" else option
                shown = ", ".join(value) if isinstance(value, tuple) else value
                raise GeotuneError(
                    f"backbone.{key} {shown}: {self.name} {reason}; remove this option",
                    code="backbone-option",
                    key=f"backbone.{key}",
                )
        for item in self.metadata:
            if item not in metadata:
                raise GeotuneError(
                    f"backbone.metadata {item}: {self.name} supports "
                    + (f"only {', '.join(metadata)}" if metadata else "no metadata"),
                    code="backbone-option",
                    key="backbone.metadata",
                )


def band_names(bands: Sequence[str] | int | Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Names of all channels: `VV`, or `S1GRD:VV` if two modalities have a band of that name.

    Raises `GeotuneError` if there are none or if one is named twice.
    """
    if isinstance(bands, int):
        names = tuple(f"band{i + 1}" for i in range(bands))
    elif isinstance(bands, Mapping):
        all_bands = [band for members in bands.values() for band in members]
        names = tuple(
            f"{modality}:{band}" if all_bands.count(band) > members.count(band) else band
            for modality, members in bands.items()
            for band in members
        )
    else:
        names = tuple(bands)
    if not names:
        raise GeotuneError(
            "backbone.bands is empty; name at least one band",
            code="band-duplicate",
            key="backbone.bands",
        )
    twice = [band for band in dict.fromkeys(names) if names.count(band) > 1]
    if twice:
        raise GeotuneError(
            f"backbone.bands: {', '.join(twice)} is named twice; name each band once",
            code="band-duplicate",
            key="backbone.bands",
        )
    return names
