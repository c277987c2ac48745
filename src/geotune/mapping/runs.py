"""Several runs over the same scenes: their folders, what each is asked for, whether they fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from geotune.adapter_config import AdapterConfig
from geotune.api.predict_options import PredictOptions
from geotune.api.predictor import predicting_adapter
from geotune.errors import GeotuneError
from geotune.hub.download import adapter_source
from geotune.mapping.options import MapOptions
from geotune.mapping.plan import PLAN, Plan
from geotune.mapping.store import open_store

Run = Path | str

OPTIONS_OF = {
    "probabilities": {"classes"},
    "uncertainty": {"classes", "values", "table"},
    "polygons": {"classes"},
    "min_area": {"classes"},
    "simplify": {"classes"},
    "right_angles": {"classes"},
    "threshold": {"classes"},
    "score": {"objects"},
    "formats": {"classes", "objects"},
}
"""The kinds of prediction that an option applies to; others apply to all."""


def map_folders(runs: Sequence[Run], out: str) -> dict[str, str]:
    """The output folder of each run, by the run's name; that of a single run is `out` itself.

    Raises `GeotuneError` for two runs of one name, and if `out` is the map of a single run.
    """
    names = [run_name(run) for run in runs]
    if len(runs) == 1:
        return {names[0]: out}
    if not runs:
        raise GeotuneError("map: found no run, expected at least one", code="option-invalid")
    for index, name in enumerate(names):
        if name in names[:index]:
            first = runs[names.index(name)]
            raise GeotuneError(
                f"map: {first} and {runs[index]} are both named {name}, which names the folder of "
                "their maps; rename one of the folders, or map them one by one",
                code="option-invalid",
                file=runs[index] if isinstance(runs[index], Path) else None,
            )
    with suppress(FileNotFoundError, NotADirectoryError):
        open_store(out).read(PLAN)
        raise GeotuneError(
            f"{out}: holds the map of a single run; choose another --out for several runs",
            code="map-exists",
            key="--out",
        )
    return {name: f"{out.rstrip('/')}/{name}" for name in names}


def run_name(run: Run) -> str:
    """The name of a run: that of its folder, or of its repository on the hub."""
    if adapter_source(run).reference is not None:
        return str(run).removeprefix("hub:").partition("@")[0].rpartition("/")[2]
    return Path(run).resolve().name


def options_of_runs(options: MapOptions, runs: Mapping[str, Run]) -> dict[str, MapOptions]:
    """The options of each run, without those that do not apply to its kind of prediction.

    Raises `GeotuneError` for an option that applies to none of them, and for runs whose inputs
    differ, as they cannot read the images together.
    """
    configs = {name: predicting_adapter(run)[1] for name, run in runs.items()}
    kinds = {name: _kind(config) for name, config in configs.items()}
    _check_inputs(configs, kinds, options)
    usual, given = PredictOptions(), options.predict
    unused = [
        name
        for name, applies in OPTIONS_OF.items()
        if getattr(given, name) not in (getattr(usual, name), False)
        and not applies & set(kinds.values())
    ]
    if unused:
        raise GeotuneError(
            f"--{unused[0].replace('_', '-')}: applies to none of the runs, which predict "
            f"{', '.join(dict.fromkeys(kinds.values()))}; remove the option",
            code="option-not-applicable",
        )
    return {name: replace(options, predict=_applying(given, kind)) for name, kind in kinds.items()}


def check_tiles(plans: Mapping[str, Plan]) -> None:
    """Raise `GeotuneError` for plans of other scenes or tiles."""
    (first, plan), *others = plans.items()
    cores = [(tile.tile, tile.core) for tile in plan.tiles]
    for name, other in others:
        if cores != [(tile.tile, tile.core) for tile in other.tiles]:
            raise GeotuneError(
                f"map: the maps of {first} and {name} have other tiles; a scene could not be read "
                "when one of them was planned; choose another --out",
                code="map-exists",
                key="--out",
            )


def _applying(options: PredictOptions, kind: str) -> PredictOptions:
    usual = PredictOptions()
    changes: dict[str, Any] = {
        each.name: getattr(usual, each.name)
        for each in fields(options)
        if kind not in OPTIONS_OF.get(each.name, {kind})
    }
    return replace(options, **changes)


def _kind(config: AdapterConfig) -> str:
    from geotune.config import parse_sections  # imports torch, as tasks do
    from geotune.factory.build_model import build_task

    return build_task(parse_sections(config.sections, "adapter.json")).output_kind


def _check_inputs(
    configs: Mapping[str, AdapterConfig], kinds: Mapping[str, str], options: MapOptions
) -> None:
    """Raise `GeotuneError` for the first difference between the inputs of runs."""
    (first, expected), *others = (
        (name, _inputs(config, kinds[name], options)) for name, config in configs.items()
    )
    for name, found in others:
        for title, value in expected.items():
            if found[title] != value:
                raise GeotuneError(
                    f"map: {name} and {first} cannot read the images together: {title} is "
                    f"{_shown(found[title])}, not {_shown(value)}; map them one by one"
                    + HINTS.get(title, ""),
                    code="runs-mismatch",
                )


HINTS = {
    "data.window": ", or give one --window for all",
    "data.bands of the files": ", or give --bands",
    "data.nodata": ", or give --nodata",
}


def _inputs(config: AdapterConfig, kind: str, options: MapOptions) -> dict[str, Any]:
    """What a run reads, by the name of the recipe's key."""
    settings, given = config.prediction, options.scenes
    return {
        "backbone.bands": list(config.normalization.bands),
        "data.resolution": settings.resolution_m,
        "data.window": options.predict.window or settings.window,
        "data.bands of the files": None if given.bands else settings.bands,
        "data.nodata": settings.nodata if given.nodata is None else given.nodata,
        "data.quality": None if given.quality is None else settings.quality,
        "backbone.metadata": list(config.metadata),
        "the result": "one table of all images" if kind == "table" else "one map of each scene",
    }


def _shown(value: Any) -> str:
    if value is None:
        return "not set"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
