"""What is asked of a provider: one value for all of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from geotune.errors import GeotuneError

Combine = Literal["mean", "max", "concat", "last"]
Metadata = Literal["time", "location"]


@dataclass(frozen=True)
class BackboneSpec:
    """A backbone as it was asked for.

    Attributes:
        name: provider and model.
        bands: names of the images' channels, in order.
        modalities: the bands of each modality, where they were named so; their channels follow
            each other in this order.
        weights: a local file or folder.
        pretrained: false for random weights.
        patch_size: for models with a flexible patch.
        timesteps: how many dates an image has.
        combine: how the maps of the dates become one.
        metadata: what of time and location the model is given.
        wavelengths: of bands, in micrometres, for models that take them.
        gsd: ground sampling distance in metres, for models that take it.
        new_bands: what happens to a band that the model has never seen: `refuse`, or `mean` to
            start it from the mean of the bands it knows.
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
        """The name without the provider."""
        return self.name.partition("/")[2]

    @property
    def loads_weights(self) -> bool:
        """Whether there are weights to be loaded."""
        return self.pretrained or self.weights is not None

    def not_installed(self, error: ImportError) -> GeotuneError:
        """What to raise where the provider's package cannot be imported."""
        return GeotuneError(
            f"backbone.name {self.name}: {error.name} is not installed; "
            f"install it with: pip install 'geotune[{self.name.partition('/')[0]}]'"
        )

    def refuse_more_dates(self, most: int) -> None:
        """Raise `GeotuneError` for more dates than the model takes."""
        if self.timesteps > most:
            raise GeotuneError(
                f"backbone.timesteps {self.timesteps}: {self.name} takes at most {most} dates"
            )

    def allow_only(self, *taken: str, metadata: Collection[str] = ()) -> None:
        """Raise `GeotuneError` for an option that was given and that the model does not take.

        Args:
            taken: of `patch_size`, `timesteps`, `modalities`, `wavelengths`, `gsd`, `new_bands`.
            metadata: what of `time` and `location` the model takes.
        """
        given = {
            "patch_size": (self.patch_size, "has a fixed patch"),
            "timesteps": (self.timesteps if self.timesteps > 1 else None, "takes one date"),
            "modalities": (tuple(self.modalities), "has a single modality"),
            "wavelengths": (dict(self.wavelengths), "takes no wavelengths"),
            "gsd": (self.gsd, "takes no ground sampling distance"),
            "new_bands": (
                self.new_bands if self.new_bands != "refuse" else None,
                "has no use for it",
            ),
        }
        for option, (value, reason) in given.items():
            if value and option not in taken:
                key = "bands" if option == "modalities" else option
                shown = ", ".join(value) if isinstance(value, tuple) else value
                raise GeotuneError(f"backbone.{key} {shown}: {self.name} {reason}; leave it out")
        for item in self.metadata:
            if item not in metadata:
                raise GeotuneError(
                    f"backbone.metadata {item}: {self.name} takes "
                    + (f"only {', '.join(metadata)}" if metadata else "none")
                )


def band_names(bands: Sequence[str] | int | Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Names of all channels, `VV` or, where two modalities have it, `S1GRD:VV`.

    Raises `GeotuneError` where there are none, or where one stands twice.
    """
    if isinstance(bands, int):
        names = tuple(f"band{i + 1}" for i in range(bands))
    elif isinstance(bands, Mapping):
        # two modalities may call a band alike: then its modality stands before it
        every = [band for members in bands.values() for band in members]
        names = tuple(
            f"{modality}:{band}" if every.count(band) > members.count(band) else band
            for modality, members in bands.items()
            for band in members
        )
    else:
        names = tuple(bands)
    if not names:
        raise GeotuneError("backbone.bands is empty; name at least one band")
    twice = [band for band in dict.fromkeys(names) if names.count(band) > 1]
    if twice:
        raise GeotuneError(f"backbone.bands names {', '.join(twice)} twice; name each band once")
    return names
