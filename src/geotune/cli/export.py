"""`geotune export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from geotune.cli.console import Json, escape, message, out, print_json, show_progress
from geotune.cli.shared_options import ModelFiles


def export(
    run: Path,
    to: Annotated[Literal["onnx", "pt2", "deepness"], Parameter(name="--to")] = "onnx",
    *,
    out_file: Annotated[Path | None, Parameter(name="--out")] = None,
    precision: Literal["fp32", "fp16", "int8"] = "fp32",
    window: int | None = None,
    any_size: Annotated[bool, Parameter(negative="")] = False,
    scenes: list[str] | None = None,
    nodata: float | None = None,
    tolerance: float | None = None,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    model: ModelFiles = ModelFiles(),
    as_json: Json = False,
) -> None:
    """Write a run's whole model to one file that runs without geotune.

    Raw pixel values in; probabilities, numbers or objects out. The file is compared with the run's
    own prediction before it is kept.

    Parameters
    ----------
    run
        A run folder, a folder with adapter.json and adapter.safetensors, or
        hub:ORG/NAME[@REVISION].
    to
        onnx, for onnxruntime and others; pt2, an archive of torch.export; deepness, an ONNX file
        that sets up the plugin Deepness of QGIS.
    out_file
        The file; by default in the run folder, with its name. Needed for hub:ORG/NAME.
    precision
        Of the weights: fp32; fp16, half the size; int8 (ONNX), a quarter, which needs --scenes.
    window
        Height and width of the images in pixels; by default as in training.
    any_size
        Accept images of any height and width; not every backbone allows it.
    scenes
        A GeoTIFF or pattern like those of the training, on whose windows the file is compared, and
        int8 calibrated; repeat it for more. By default it is compared on random windows.
    nodata
        Value of missing pixels besides NaN, for programs that know no NaN; by default data.nodata
        of the run's recipe.
    tolerance
        Largest accepted difference from the run's prediction: of probabilities, of numbers in
        standard deviations of the labels, of coordinates as a share of the window. By default
        0.0001 for fp32, 0.01 for fp16, 0.05 for int8.
    overwrite
        Replace an existing file.
    """
    from geotune.utils.progress import DATA_MODULES, loading_libraries

    with show_progress() as on_progress:
        with loading_libraries(on_progress, DATA_MODULES):
            from geotune.api.exporting import export as export_run
        result = export_run(
            run,
            to,
            out_file,
            precision=precision,
            window=window,
            any_size=any_size,
            scenes=scenes or (),
            nodata=nodata,
            tolerance=tolerance,
            overwrite=overwrite,
            **vars(model),
            on_progress=on_progress,
        )
    if as_json:
        print_json(vars(result))
        return
    out().print(f"{escape(str(result.path))}: {result.megabytes:.1f} MB, {result.precision}")
    for name, shape in result.inputs.items():
        out().print(f"  input {name} {escape(str(tuple(shape)).replace(chr(39), ''))}")
    out().print(f"  output {', '.join(result.outputs)}")
    out().print(
        f"  differs from the run's prediction by at most {result.largest_difference:.1g} in "
        f"{result.windows} windows (accepted: {result.tolerance:g})"
    )
    for note in result.notes:
        message(f"note: {note}")
