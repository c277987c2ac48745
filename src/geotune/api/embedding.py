"""`geotune embed`: features of a backbone or of a trained encoder, as maps and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geotune.adapter_config import AdapterConfig, load_adapter_config
from geotune.api.predicted_scenes import (
    PredictedScenes,
    SceneOptions,
    check_inputs_stay,
    kept_notes,
    missed_notes,
)
from geotune.api.recipes import OnMessage, as_recipe, ignore_message
from geotune.config import Recipe
from geotune.data.raster.source import RasterSource
from geotune.data.scenes.find import Names
from geotune.errors import GeotuneError
from geotune.factory.build_data import build_data, with_window
from geotune.factory.open_data import require_dates
from geotune.hub.download import AdapterSource, adapter_source
from geotune.inference.geoparquet import check_pyarrow
from geotune.utils.precision import (
    PredictionPrecision,
    check_prediction_precision,
    prediction_notes,
)
from geotune.utils.progress import ALL_MODULES, OnProgress, ignore_progress, loading_libraries

if TYPE_CHECKING:
    from geotune.factory.feature_model import FeatureModel, Layer
    from geotune.inference.cell_grid import CellGrid
    from geotune.inference.embedding import FeatureMap
    from geotune.inference.feature_projection import Projection, Quantization
    from geotune.inference.sliding_window import WindowOptions

TABLE = "features.parquet"
FIT_WINDOWS = 512
"""Windows from which principal components and the range of 8-bit integers are computed."""


@dataclass(frozen=True)
class EmbedResult:
    """What was written.

    Attributes:
        scenes: the maps, in order.
        table_path: GeoParquet of the pooled features of all windows, if requested.
        layer: whose features they are.
        dimensions: of the features.
        stride: side of a cell in pixels.
        notes: for the user.
    """

    scenes: list[FeatureMap]
    table_path: Path | None
    layer: str
    dimensions: int
    stride: float
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Embedder:
    """A model of features, with what an embedding depends on besides it."""

    features: FeatureModel
    source: AdapterSource
    config: AdapterConfig
    tags: dict[str, str]
    notes: list[str]


def embed(
    source: Path | str | Recipe | Mapping[str, Any],
    scenes: Path | str | Sequence[Path | str],
    out: Path | str,
    *,
    layer: Layer = -1,
    pca: int | Path | str | None = None,
    int8: bool = False,
    pooled: bool = False,
    maps: bool = True,
    window: int | None = None,
    overlap: float | None = None,
    batch_size: int = 8,
    precision: PredictionPrecision = "32-true",
    weights: Path | str | None = None,
    backbone: str | None = None,
    method: str | None = None,
    bands: Names | None = None,
    nodata: float | None = None,
    quality: str | None = None,
    device: str = "auto",
    on_message: OnMessage = ignore_message,
    on_progress: OnProgress = ignore_progress,
) -> EmbedResult:
    """Write the features of scenes: of a run's trained encoder, or of a recipe's frozen backbone.

    `SCENE_features.tif` has a pixel for each cell of the layer and a band for each dimension.

    Args:
        source: run folder, folder of an adapter or `hub:ORG/NAME`, whose trained encoder is used;
            or a recipe (a YAML file, a dict or parsed), whose backbone is used as pretrained, with
            the normalisation of a training on the recipe's data.
        scenes: one or several paths or patterns; `MODALITY=pattern` for several modalities.
        out: output folder.
        layer: number or name of a block of the backbone, or of an output map of a side network; a
            negative number counts from the end.
        pca: number of principal components to write instead of the dimensions, computed from these
            scenes; or a map with components, which are applied again.
        int8: write 8-bit integers with a scale and an offset of each band.
        pooled: also write `features.parquet`, the mean features of each window.
        maps: write the maps.
        window: window side in pixels; by default as in training, and rounded up to whole patches.
        overlap: share of a window that its neighbour covers too; by default half of it for maps,
            none for a table alone.
        batch_size: windows at once.
        precision: as in `geotune.predict`.
        weights: of the backbone, if they moved since the training.
        backbone: as in `load_adapter`.
        method: as in `load_adapter`.
        bands: names of the files' bands; by default as in the training.
        nodata: nodata value of the files; by default as in the training.
        quality: pattern of the scenes' quality masks, evaluated as `data.quality` of the training.
        device: `auto`, `cpu`, `gpu` or `mps`.
        on_message: receives messages and notes.
        on_progress: receives scene name, finished and total windows, and other phases.

    Raises `GeotuneError` before anything is written if a scene or an option does not fit.
    """
    check_prediction_precision(precision)
    if not maps and not pooled:
        raise GeotuneError(
            "embed: neither maps nor the table of windows are requested; add --pooled, or remove "
            "--no-maps",
            code="option-invalid",
        )
    if pooled:
        check_pyarrow("--pooled")
    out = Path(out)
    patterns = [*map(str, [scenes] if isinstance(scenes, Path | str) else scenes)]
    if _is_recipe(source):
        embedder = _of_recipe(source, layer, on_message, on_progress)
    else:
        embedder = _of_run(str(source), layer, weights, backbone, method, on_progress)
    features = replace(embedder.features, precision=precision)
    settings = embedder.config.prediction
    files = SceneOptions(bands=bands, nodata=nodata, quality=quality)
    opened = PredictedScenes(embedder.source, embedder.config, files)
    sources = opened.open(opened.find(patterns))
    require_dates(sources, features.backbone.timesteps)
    if maps:
        check_inputs_stay(sources, out, ["features"])
    from geotune.api.environment import pick_device
    from geotune.inference.cell_grid import CellGrid
    from geotune.inference.embedding import embed_scene
    from geotune.inference.input_check import compare_images
    from geotune.inference.pooled_table import PooledTable
    from geotune.inference.sliding_window import WindowOptions

    notes = [*embedder.notes, *missed_notes(patterns)]
    grid = CellGrid.of_stride(features.tap.stride, features.patch)
    side = settings.window if window is None else window
    aligned = grid.window(side, features.backbone.size_divisor)
    if window is not None and aligned != window:
        notes.append(f"window: {window} pixels are no whole patches; {aligned} are used")
    target = pick_device(device)
    notes += prediction_notes(precision, target.type)
    features.model.to(target)
    options = WindowOptions(
        bands=features.backbone.bands,
        window=aligned,
        overlap=(0.5 if maps else 0.0) if overlap is None else overlap,
        batch_size=batch_size,
        device=target,
        metadata=features.backbone.metadata,
    )
    projection, quantization = _fitted(
        features, sources, options, grid, pca, int8 and maps, embedder.tags, on_progress
    )
    results = []
    table = PooledTable(out / TABLE, sources) if pooled else None
    with table or nullcontext():
        for name, scene in sources.items():
            result = embed_scene(
                features,
                scene,
                out,
                replace(options, on_progress=partial(on_progress, name)),
                grid=grid,
                dimensions=features.tap.channels,
                name=name,
                projection=projection,
                quantization=quantization,
                tags=embedder.tags,
                write_map=maps,
                on_windows=table.of_scene(name, scene) if table else None,
            )
            if settings.images is not None:
                unlike = compare_images({name: scene}, settings.images)
                result = replace(result, notes=(*unlike, *result.notes))
            results.append(result)
    written = {path for result in results for path in result.files}
    made = out / TABLE if table is not None and table.windows else None
    maps_and_table = [out / f"{name}_features.tif" for name in sources] + [out / TABLE]
    notes += kept_notes(maps_and_table, written if made is None else {*written, made})
    return EmbedResult(
        results,
        made,
        features.tap.name,
        features.tap.channels,
        grid.stride,
        tuple(notes),
    )


def _is_recipe(source: Any) -> bool:
    """Whether a source is a recipe, and not a folder or a name on the hub."""
    return not isinstance(source, Path | str) or Path(source).suffix.lower() in (".yaml", ".yml")


def _of_run(
    run: str,
    layer: Layer,
    weights: Path | str | None,
    backbone: str | None,
    method: str | None,
    on_progress: OnProgress,
) -> _Embedder:
    adapter = adapter_source(run)
    config = load_adapter_config(adapter.folder)
    with loading_libraries(on_progress, ALL_MODULES):
        from geotune.factory.build_model import load_adapter
        from geotune.factory.feature_model import feature_model

    built = load_adapter(adapter, weights, backbone=backbone, method=method)
    features = feature_model(built.model, layer)
    tags = {"method": str(config.sections["method"].get("kind")), "adapter_hash": config.hash}
    notes = [] if adapter.reference is None else [f"model: {adapter}"]
    base = _tags(config.base["name"], config.base["fingerprint"], features.tap.name)
    return _Embedder(features, adapter, config, {**base, **tags}, notes)


def _of_recipe(
    recipe: Recipe | Path | str | Mapping[str, Any],
    layer: Layer,
    on_message: OnMessage,
    on_progress: OnProgress,
) -> _Embedder:
    parsed = as_recipe(recipe, (), on_message)
    data = build_data(parsed, on_progress)
    with loading_libraries(on_progress, ALL_MODULES):
        from geotune.backbones.create import build_backbone
        from geotune.factory.build_model import adapter_sections, resolve_recipe
        from geotune.factory.feature_model import backbone_features
        from geotune.factory.prediction_settings import prediction_settings
        from geotune.inference.input_check import training_images
        from geotune.normalization import choose_normalization

    parsed, notes = resolve_recipe(with_window(parsed, data.window), data)
    base = build_backbone(parsed.backbone, data.statistics.bands)
    normalization, own = choose_normalization(
        base, data.statistics, parsed.data.normalize, parsed.data.nodata_fill
    )
    if base.random_weights:
        notes.append(f"{base.name} has random weights: nothing was pretrained")
    features = backbone_features(base, normalization, layer)
    tags = _tags(base.name, base.fingerprint, features.tap.name)
    config = AdapterConfig(
        {"name": base.name, "fingerprint": base.fingerprint},
        normalization,
        adapter_sections(parsed),
        prediction_settings(parsed, {}, training_images(data)),
        tags["geotune"],
        hash="",
    )
    origin = AdapterSource(Path(recipe if isinstance(recipe, Path | str) else "the recipe"))
    return _Embedder(features, origin, config, tags, [*notes, *base.notes, *own])


def _tags(backbone: str, fingerprint: str, layer: str) -> dict[str, str]:
    from geotune import __version__

    return {
        "geotune": __version__,
        "backbone": backbone,
        "backbone_fingerprint": fingerprint,
        "layer": layer,
    }


def _fitted(
    features: FeatureModel,
    sources: Mapping[str, RasterSource],
    options: WindowOptions,
    grid: CellGrid,
    pca: int | Path | str | None,
    int8: bool,
    tags: Mapping[str, str],
    on_progress: OnProgress,
) -> tuple[Projection | None, Quantization | None]:
    """The components and the range of the features, as requested."""
    from geotune.inference.embedding import count_batches, sampled_features
    from geotune.inference.feature_projection import FeatureStatistics

    count = int(str(pca)) if str(pca).isdecimal() else None
    projection = None
    if pca is not None and count is None:
        projection = _read_projection(Path(str(pca)), tags)
    if count is None and not int8:
        return projection, None
    statistics = FeatureStatistics(count_batches(sources, options, grid, FIT_WINDOWS))
    progress = partial(on_progress, "principal components" if count else "range of the features")
    for each in sampled_features(features, sources, options, grid, FIT_WINDOWS, progress):
        statistics.add(each)
    if not statistics.covariance.count:
        raise GeotuneError(
            "embed: no pixel of the scenes has data, so --pca and --int8 have nothing to be "
            "computed from; check the scenes and --nodata",
            code="option-not-applicable",
        )
    if count is not None:
        projection = statistics.projection(count)
    return projection, statistics.quantization(projection) if int8 else None


def _read_projection(path: Path, tags: Mapping[str, str]) -> Projection:
    """The components of a map. Raises `GeotuneError` if it is of another model or layer."""
    import rasterio

    from geotune.inference.feature_projection import Projection

    try:
        with rasterio.open(path) as file:
            found, of_bands = file.tags(), [file.tags(i) for i in file.indexes]
    except rasterio.errors.RasterioIOError as error:
        raise GeotuneError(
            f"--pca {path}: found no number and no map of features ({error}); give a number such "
            "as 3, or a map that geotune embed --pca wrote",
            code="option-invalid",
            file=path,
        ) from error
    projection = Projection.from_tags(found, of_bands, f"--pca {path}")
    for key in ("backbone_fingerprint", "adapter_hash", "layer"):
        if found.get(key) != tags.get(key):
            raise GeotuneError(
                f"--pca {path}: its components are of {key} {found.get(key, 'none')}, expected "
                f"{tags.get(key, 'none')}; use the same model and layer",
                code="option-invalid",
                file=path,
            )
    return projection
