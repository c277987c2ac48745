"""`geotune init`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from geotune.cli.console import Json, escape, message, out, print_json, show_progress

if TYPE_CHECKING:
    from geotune.api.init.create_recipe import InitResult


def init(
    folder: Path,
    *,
    file: Annotated[Path | None, Parameter(name="--out")] = None,
    task: Literal["segment", "detect", "classify", "regress", "density"] | None = None,
    classes: str | None = None,
    class_field: str | None = None,
    bands: str | None = None,
    backbone: str | None = None,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    as_json: Json = False,
) -> None:
    """Write a commented recipe for a folder of imagery and labels.

    Finds out how images and labels are stored, what the labels are for, a split that does not leak,
    and settings that fit the memory of this machine. Where there are two readings, the recipe has
    the likelier one and a comment with the key to change. Asks nothing.

    Parameters
    ----------
    folder
        Images and labels: GeoTIFFs with masks, GeoJSON, GeoPackage or Shapefile; folders of images
        and masks; a folder per class; COCO, DOTA, YOLO, VOC; CSVs of points.
    file
        The recipe to write; by default <folder name>.yaml.
    task
        By default decided from the labels.
    classes
        Names, separated by commas; for masks in ascending order of their values.
    class_field
        Attribute of vector labels with the class; "" for none.
    bands
        Names of the bands in file order, separated by commas, if the files do not name them.
    backbone
        By default one that needs no download; see geotune list backbones.
    overwrite
        Replace an existing recipe.
    """
    from geotune.utils.progress import DATA_MODULES, loading_libraries

    with show_progress() as on_progress:
        with loading_libraries(on_progress, DATA_MODULES):
            from geotune.api.init.create_recipe import init as create_recipe
            from geotune.api.init.create_recipe import init_to_dict
        result = create_recipe(
            folder,
            file,
            task=task,
            classes=_names(classes),
            class_field=class_field,
            bands=_names(bands),
            backbone=backbone,
            overwrite=overwrite,
            on_message=message,
            on_progress=on_progress,
        )
    if as_json:
        print_json(init_to_dict(result))
    else:
        _show(result)


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


SEVERITY_STYLES = {"error": "red", "warning": "yellow"}


def _show(result: InitResult) -> None:
    for text in result.found:
        out().print(escape(text))
    for key, comment in result.choices.items():
        if key.startswith(("task.", "data.", "train.")):
            out().print(f"[bold]{key}[/bold]: [dim]{escape(comment)}[/dim]")
    for issue in result.issues:
        style = SEVERITY_STYLES[issue.severity]
        out().print(f"[{style}]{issue.severity}[/{style}] {escape(issue.text)}")
    path = shlex.quote(str(result.recipe))
    out().print(f"recipe: {result.recipe}\nnext:")
    for command, purpose in (
        ("check", "the data, with a page of images and labels"),
        ("plan", "the memory of a training; with --time also its time"),
        ("fit", "train"),
    ):
        out().print(f"  geotune {command} {path}  [dim]# {purpose}[/dim]")
