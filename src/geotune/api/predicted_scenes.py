"""The scenes of a prediction: found, opened and checked as the adapter's training requires."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from geotune.adapter_config import AdapterConfig
from geotune.data.issues import ErrorCollector
from geotune.data.raster.metadata import check_metadata
from geotune.data.raster.source import RasterSource
from geotune.data.scenes.entry import SceneEntry
from geotune.data.scenes.find import Names
from geotune.data.scenes.open_scenes import by_modality, list_scenes, missed_images, open_entries
from geotune.data.scenes.quality import mask_file, with_quality
from geotune.errors import GeotuneError
from geotune.hub.download import AdapterSource
from geotune.utils.text import join_some


@dataclass(frozen=True, kw_only=True)
class SceneOptions:
    """How the files of scenes are read.

    Attributes:
        bands: names of the files' bands; by default as in the training.
        nodata: nodata value of the files; by default as in the training.
        quality: pattern of the scenes' quality masks, evaluated as `data.quality` of the training.
    """

    bands: Names | None = None
    nodata: float | None = None
    quality: str | None = None


class PredictedScenes:
    """Lists and opens the scenes that an adapter predicts.

    Args:
        adapter: that predicts them.
        config: of the adapter.
        options: see `SceneOptions`.

    Raises `GeotuneError` for quality masks whose values are unknown.
    """

    def __init__(
        self, adapter: AdapterSource, config: AdapterConfig, options: SceneOptions
    ) -> None:
        settings = config.prediction
        self._config = config
        self._bands = options.bands or settings.bands
        self._nodata = settings.nodata if options.nodata is None else options.nodata
        self._masks = None
        if options.quality is not None:
            if settings.quality is None:
                raise GeotuneError(
                    f"--quality {options.quality}: {adapter} was trained without data.quality, so "
                    "it is unknown which mask values to exclude; remove --quality",
                    code="option-not-applicable",
                    key="data.quality",
                )
            update = {"pattern": options.quality, "mask_image": True}
            self._masks = settings.quality.model_copy(update=update)

    def find(
        self, patterns: Sequence[str], errors: ErrorCollector | None = None
    ) -> dict[str, SceneEntry]:
        """The scenes of patterns or tables by name; `errors` may collect those of single rows."""
        return list_scenes(
            by_modality(patterns),
            bands=self._bands,
            wanted_bands=self._config.normalization.bands,
            errors=errors,
        )

    def mask_of(self, name: str, entry: SceneEntry) -> Path | None:
        """The quality mask of a scene, whether or not it exists; None without `--quality`."""
        return None if self._masks is None else mask_file(self._masks, name, entry.fields)

    def open(
        self, entries: Mapping[str, SceneEntry], errors: ErrorCollector | None = None
    ) -> dict[str, RasterSource]:
        """Open scenes by name; `errors` may collect those of single scenes.

        Raises `GeotuneError` if a scene does not fit the model.
        """
        errors = errors or ErrorCollector()
        opened = open_entries(
            entries,
            errors,
            self._bands,
            self._config.normalization.bands,
            self._nodata,
            self._config.prediction.resolution_m,
        )
        if self._masks is not None:
            masked: dict[str, RasterSource] = {}
            for name, source in opened.items():
                with errors.catch(name, source.path):
                    fields = {name: entries[name].fields}
                    masked |= with_quality({name: source}, self._masks, fields)
            opened = masked
        check_metadata(opened, self._config.metadata)
        return opened


def check_inputs_stay(
    sources: Mapping[str, RasterSource], out: Path, endings: Sequence[str]
) -> None:
    """Raise `GeotuneError` if a map would replace an image that is read.

    Args:
        sources: images by name.
        out: folder of the maps `<name>_<ending>.tif`.
        endings: of all maps of a scene.
    """
    inputs = {path.resolve() for source in sources.values() for path in source.files}
    for name in sources:
        for ending in endings:
            path = out / f"{name}_{ending}.tif"
            if path.resolve() in inputs:
                raise GeotuneError(
                    f"{path}: is an input, and the {ending} of {name} would replace it; choose "
                    "another --out, or leave it out of the scenes",
                    code="output-exists",
                    key="--out",
                    file=path,
                )


def kept_notes(paths: Sequence[Path], written: Collection[Path]) -> list[str]:
    """A note of files that an earlier run left among those that were written.

    Args:
        paths: files that belong to the same scenes; those that do not exist are left out.
        written: files that are new.
    """
    kept = [path for path in paths if path not in written and path.exists()]
    if not kept:
        return []
    names = join_some([path.name for path in kept])
    return [
        f"{kept[0].parent}: found {names} of an earlier run, which may not fit the new files; "
        "remove them, or choose another --out"
    ]


def missed_notes(patterns: Sequence[str]) -> list[str]:
    """Notes of images that the patterns miss by upper and lower case alone."""
    return [issue.text for issue in missed_images(by_modality(patterns), key=None)]
