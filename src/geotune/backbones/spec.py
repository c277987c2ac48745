"""The options of a backbone, common to all providers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from pydantic import Field, PositiveFloat

from geotune.config.backbone_options import BackboneOptions
from geotune.errors import GeotuneError
from geotune.utils.text import similar_names

Bands = Sequence[str] | int | Mapping[str, Sequence[str]]
"""Band names in the order of the channels (by modality if there are several), or their number."""


class BackboneSpec(BackboneOptions):
    """Options of a backbone whose channels are known.

    Attributes:
        bands: names of the image channels, in order.
        modalities: bands of each modality, if given by modality; channels are in this order.
        wavelengths: of bands, in micrometres.
    """

    bands: tuple[str, ...]
    modalities: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    wavelengths: dict[str, PositiveFloat] = Field(default_factory=dict)

    @classmethod
    def from_options(
        cls, options: BackboneOptions, bands: Sequence[str] | None = None
    ) -> BackboneSpec:
        """The spec of options that are valid already.

        `bands` are the channels of the images, unless `options` has them by modality; by default
        those of `options`.
        """
        requested = options.bands
        modalities = requested if isinstance(requested, dict) else {}
        if modalities or bands is None:
            assert requested is not None, "neither the options nor the caller name bands"
            bands = band_names(requested)
        values = {
            **dict(options),
            "bands": tuple(bands),
            "modalities": modalities,
            "wavelengths": options.wavelengths or {},
        }
        return cls.model_construct(**values)

    def with_bands(self, bands: Sequence[str]) -> BackboneSpec:
        """The same spec for other band names."""
        return self.model_copy(update={"bands": tuple(bands)})

    @property
    def model(self) -> str:
        """The model's name without the provider."""
        return self.name.partition("/")[2]

    @property
    def loads_weights(self) -> bool:
        """Whether weights are loaded."""
        return self.pretrained or self.weights is not None

    @contextmanager
    def imports_provider(self) -> Iterator[None]:
        """Raise `GeotuneError` if a package of the provider cannot be imported inside."""
        try:
            yield
        except ImportError as error:
            raise GeotuneError(
                f"backbone.name {self.name}: {error.name} is not installed; "
                f"install it with: pip install 'geotune[{self.name.partition('/')[0]}]'",
                code="dependency-missing",
                key="backbone.name",
            ) from error

    def unknown_model_error(self, models: Iterable[str]) -> GeotuneError:
        """The error for a name that is not among the provider's `models`; suggests similar ones."""
        provider, _, model = self.name.partition("/")
        by_lower = {name.lower(): name for name in models}
        query = model.partition(".")[0].lower()  # without timm's tag of the weights
        similar = [name for name in by_lower if query and name.startswith(f"{query}_")][:20]
        similar = similar or similar_names(query, by_lower, count=3)
        similar = similar or [name for name in by_lower if query and query in name][:5]
        names = ", ".join(f"{provider}/{by_lower[name]}" for name in similar)
        return GeotuneError(
            f"backbone.name {self.name}: unknown model" + (f"; similar: {names}" if names else ""),
            code="backbone-unknown",
            key="backbone.name",
        )

    def flexible_patch_size(self, default: int, maximum: int | None = None) -> int:
        """The patch size in pixels. Raises `GeotuneError` if it is not from 1 to `maximum`."""
        patch = default if self.patch_size is None else self.patch_size
        if patch < 1 or (maximum is not None and patch > maximum):
            sizes = "1 pixel or more" if maximum is None else f"1 to {maximum} pixels"
            raise GeotuneError(
                f"backbone.patch_size {patch}: {self.name} supports patches of {sizes}",
                code="backbone-option",
                key="backbone.patch_size",
            )
        return patch

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
                `new_bands`, `weights_bands`.
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
            "weights_bands": (self.weights_bands, "knows the bands of its weights"),
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


def band_names(bands: Bands) -> tuple[str, ...]:
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
