"""`geotune export`: a run's model in a file that runs without geotune."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import geotune
from geotune.adapter_config import load_adapter_config
from geotune.api.recipes import pretraining_error
from geotune.data.scenes.open_scenes import by_modality, open_rasters
from geotune.errors import GeotuneError
from geotune.export_formats.precision import TOLERANCE, Precision
from geotune.hub.download import adapter_source
from geotune.utils.atomic import check_writable, replacing
from geotune.utils.progress import ALL_MODULES, OnProgress, ignore_progress, loading_libraries

if TYPE_CHECKING:
    from geotune.adapter_config import AdapterConfig
    from geotune.export_formats.exported_model import ExportedModel
    from geotune.export_formats.metadata import Exported
    from geotune.export_formats.windows import Inputs
    from geotune.factory.build_model import BuiltModel

Target = Literal["onnx", "pt2", "deepness"]

SUFFIXES = {"onnx": ".onnx", "pt2": ".pt2", "deepness": ".deepness.onnx"}
CALIBRATION_WINDOWS = 32
"""Windows of scenes by which a file is compared and, with int8, calibrated."""


@dataclass(frozen=True)
class ExportResult:
    """An exported model.

    Attributes:
        path: the file.
        to: its format.
        precision: of its weights.
        megabytes: its size, 10^6 bytes.
        inputs: shape of each input, with names of dimensions that may vary.
        outputs: names of the outputs.
        merged: the method's update was folded into the backbone's weights.
        largest_difference: from the run's own prediction, see `export_formats.compare`.
        tolerance: the largest accepted difference.
        windows: number of windows that were compared.
        seconds: wall time.
        notes: messages for the user.
    """

    path: Path
    to: Target
    precision: Precision
    megabytes: float
    inputs: dict[str, list[int | str]]
    outputs: list[str]
    merged: bool
    largest_difference: float
    tolerance: float
    windows: int
    seconds: float
    notes: tuple[str, ...]


def export(
    run: Path | str,
    to: Target = "onnx",
    out: Path | str | None = None,
    *,
    precision: Precision = "fp32",
    window: int | None = None,
    any_size: bool = False,
    scenes: Path | str | Sequence[Path | str] = (),
    nodata: float | None = None,
    tolerance: float | None = None,
    overwrite: bool = False,
    weights: Path | str | None = None,
    backbone: str | None = None,
    method: str | None = None,
    on_progress: OnProgress = ignore_progress,
) -> ExportResult:
    """Write a finished run's whole model to one file: raw pixel values in, predictions out.

    Normalisation, backbone, method and decoder are in the file, with the softmax or the scale of
    the labels, and the selection of horizontal boxes and points. The method is merged into the
    backbone if it can be. The file is compared with the run's own prediction before it is kept.

    Args:
        run: run folder, folder with `adapter.json` and `adapter.safetensors`, or
            `hub:ORG/NAME[@REVISION]`, which needs `out`.
        to: `onnx`; `pt2`, an archive of `torch.export`; `deepness`, an ONNX file for the plugin
            Deepness of QGIS.
        out: the file; by default `RUN/<name of the run>` with the suffix of the format.
        precision: of the weights: `fp32`; `fp16`, half the size; `int8`, a quarter, for ONNX.
        window: height and width of the images; by default as in training.
        any_size: accept images of any height and width; not every backbone allows it.
        scenes: paths or patterns of scenes like those of the training. The file is compared on
            their windows, by default on random ones; `int8` is calibrated on them and needs them.
        nodata: value of missing pixels besides NaN, for programs that know no NaN; by default
            `data.nodata` of the training.
        tolerance: largest difference from the run's prediction that is accepted, see
            `largest_difference` in `export_formats/compare.py`; by default 1e-4, 1e-2 for fp16,
            5e-2 for int8.
        overwrite: replace an existing file.
        weights: of the backbone, if they moved since the training.
        backbone: as in `load_adapter`.
        method: as in `load_adapter`.
        on_progress: receives the progress of each phase.

    Raises `GeotuneError` if the format cannot hold the model, if a package is missing, and if the
    predictions of the file differ by more than the tolerance.
    """
    started = time.perf_counter()
    source = adapter_source(run)
    config = load_adapter_config(source.folder)
    if config.sections["task"].get("kind") == "reconstruct":
        raise pretraining_error(run)
    if out is None and source.reference is not None:
        raise GeotuneError(
            f"{run}: is on the hub, so there is no folder for the export; name a file with --out",
            code="option-invalid",
            key="--out",
        )
    patterns = [*map(str, [scenes] if isinstance(scenes, Path | str) else scenes)]
    _check_options(to, precision, patterns, window, tolerance)
    folder = source.folder
    path = Path(out) if out is not None else folder / f"{folder.resolve().name}{SUFFIXES[to]}"
    check_writable(path)
    if path.exists() and not overwrite:
        raise GeotuneError(
            f"{path}: exists; choose another --out, or replace it with --overwrite",
            code="output-exists",
            file=path,
        )
    size = window or config.prediction.window
    with loading_libraries(on_progress, ALL_MODULES):
        import torch

        from geotune.export_formats.compare import largest_difference, predictions
        from geotune.export_formats.exported_model import ExportedModel
        from geotune.export_formats.metadata import Exported
        from geotune.export_formats.program import LEAST_MULTIPLE, example_inputs
        from geotune.factory.build_model import load_adapter
        from geotune.methods.core.quantization import dequantize_frozen

    built = load_adapter(source, weights, backbone=backbone, method=method)
    divisor = built.backbone.size_divisor
    if any_size:  # coarse maps of more than one pixel, as those of other sizes
        size = max(LEAST_MULTIPLE, -(-size // divisor)) * divisor
    layout: Any = "yolo" if to == "deepness" else "plain"
    nodata = config.prediction.nodata if nodata is None else nodata
    model = ExportedModel(built, layout=layout, nodata=nodata)
    exported = Exported(model, config, size, any_size, precision)
    if to == "deepness":
        from geotune.export_formats.deepness import check_deepness

        check_deepness(exported)
    windows = _windows(patterns, exported, example_inputs(model, size))
    compared = windows
    if any_size:  # sizes that the tracing took as constants show at another one
        other = example_inputs(model, size + divisor)
        other["images"] = torch.cat([other["images"]] * 2, -1)[..., : size + 2 * divisor]
        compared = [*windows, *_windows([], exported, other)]
    expected = predictions(model, compared)  # before the model is changed for the file
    dequantize_frozen(built.model)
    notes = _merge(built)
    limit = TOLERANCE[precision] if tolerance is None else tolerance
    with replacing(path) as incomplete:
        on_progress("tracing", 0, 1)
        run_file = _write(exported, to, incomplete, windows)
        on_progress("tracing", 1, 1)
        on_progress("comparing", 0, 1)
        difference = largest_difference(model, expected, run_file, compared)
        on_progress("comparing", 1, 1)
        if not difference <= limit:
            raise GeotuneError(
                f"{path}: its predictions differ from the run's by up to {difference:.2g}, more "
                f"than the tolerance of {limit:g}; "
                + (
                    "use --precision fp32, or accept it with --tolerance"
                    if precision != "fp32"
                    else "report it, or accept it with --tolerance"
                ),
                code="export-inaccurate",
                file=path,
            )
        megabytes = incomplete.stat().st_size / 1e6
    return ExportResult(
        path,
        to,
        precision,
        megabytes,
        exported.input_shapes(),
        list(model.output_names),
        exported.merged,
        difference,
        limit,
        len(compared),
        time.perf_counter() - started,
        (*notes, *_notes(exported, patterns)),
    )


def _check_options(
    to: Target,
    precision: Precision,
    patterns: Sequence[str],
    window: int | None,
    tolerance: float | None,
) -> None:
    problem = ""
    if to not in SUFFIXES:
        problem = f"--to {to}: expected one of {', '.join(SUFFIXES)}"
    elif to == "pt2" and precision == "int8":
        problem = "--precision int8: only for ONNX; use --to onnx, or --precision fp16"
    elif precision == "int8" and not patterns:
        problem = (
            "--precision int8: the ranges of the activations are measured on images; name some "
            "with --scenes"
        )
    elif window is not None and window < 1:
        problem = f"--window {window}: expected at least 1"
    elif tolerance is not None and not tolerance > 0:
        problem = f"--tolerance {tolerance:g}: expected a number above 0, such as 0.01"
    if problem:
        raise GeotuneError(problem, code="option-invalid")
    if to != "pt2":
        from geotune.export_formats.onnx_file import require_onnx

        require_onnx()


def _merge(built: BuiltModel) -> list[str]:
    """Merge the method if possible; returns a note if it failed."""
    encoder = built.model.encoder
    if not encoder.can_merge:
        return []
    try:
        encoder.merge()
    except GeotuneError as error:
        return [f"the method is not merged: {error}"]
    built.model.eval()
    return []


def _windows(patterns: Sequence[str], exported: Exported, example: dict[str, Any]) -> list[Inputs]:
    """The windows on which the file is compared."""
    from geotune.export_formats.windows import random_windows, scene_windows

    one = {name: x[:1].numpy() for name, x in example.items()}
    if not patterns:
        return random_windows(exported.config, one)
    config, settings = exported.config, exported.config.prediction
    sources = open_rasters(
        by_modality(patterns),
        bands=settings.bands,
        wanted_bands=config.normalization.bands,
        nodata=settings.nodata,
        resolution=settings.resolution_m,
    )
    return scene_windows(
        sources,
        config.normalization.bands,
        exported.window,
        exported.model.model.encoder.backbone.metadata,
        CALIBRATION_WINDOWS,
    )


def _write(
    exported: Exported, to: Target, path: Path, windows: Sequence[Inputs]
) -> Callable[[Inputs], Sequence[Any]]:
    """Write the file; returns what runs it."""
    from geotune.export_formats.metadata import describe
    from geotune.export_formats.program import trace

    model = exported.model
    description = describe(exported, geotune.__version__)
    if to == "pt2":
        return _write_pt2(exported, path, description)
    from geotune.export_formats.deepness import deepness_properties
    from geotune.export_formats.onnx_file import OnnxModel, write_onnx
    from geotune.export_formats.precision import to_half, to_int8

    properties = {"geotune": json.dumps(description)}
    if to == "deepness":
        properties |= deepness_properties(exported)
    task = exported.config.sections["task"].get("kind")
    write_onnx(
        trace(model, exported.window, any_size=exported.any_size),
        path,
        inputs=model.input_names,
        outputs=model.output_names,
        properties=properties,
        title=f"{task} with {exported.config.base['name']}",
        divisor=model.model.encoder.backbone.size_divisor if exported.any_size else None,
    )
    if exported.precision == "fp16":
        to_half(path)
    elif exported.precision == "int8":
        to_int8(path, windows)
    return OnnxModel(path)


def _write_pt2(
    exported: Exported, path: Path, description: dict[str, Any]
) -> Callable[[Inputs], Sequence[Any]]:
    from geotune.export_formats.program import trace
    from geotune.export_formats.pt2_file import Pt2Model, write_pt2

    model: ExportedModel = exported.model
    if exported.precision == "fp16":
        model.halve()
    write_pt2(trace(model, exported.window, any_size=exported.any_size), path, description)
    return Pt2Model(path)


def _notes(exported: Exported, patterns: Sequence[str]) -> list[str]:
    config: AdapterConfig = exported.config
    notes = []
    if not patterns:
        notes.append(
            "compared on random windows with the mean and deviation of the training images; "
            "--scenes compares on real ones"
        )
    if config.prediction.quality is not None:
        notes.append(
            "the run excludes pixels by a quality mask; set those pixels to NaN before the file "
            "reads them"
        )
    if config.prediction.resolution_m is not None:
        notes.append(
            f"the run resamples images to {config.prediction.resolution_m:g} m a pixel; resample "
            "them before the file reads them"
        )
    return notes
