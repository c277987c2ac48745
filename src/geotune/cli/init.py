"""`geotune init`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from geotune.cli.console import Json, escape, message, out, print_json, show_progress
from geotune.errors import GeotuneError

if TYPE_CHECKING:
    from geotune.api.init.create_recipe import InitResult


def init(
    folder: Path | None = None,
    *,
    file: Annotated[Path | None, Parameter(name="--out")] = None,
    task: Literal["segment", "detect", "classify", "regress", "density"] | None = None,
    classes: str | None = None,
    class_field: str | None = None,
    bands: str | None = None,
    backbone: str | None = None,
    from_terratorch: Path | None = None,
    checkpoint: Path | None = None,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    as_json: Json = False,
) -> None:
    """Write a commented recipe for a folder of imagery and labels, or a TerraTorch configuration.

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
    from_terratorch
        In place of a folder: a YAML file of terratorch fit, whose model, data and training the
        recipe takes over. What has no counterpart is listed.
    checkpoint
        A .ckpt of that configuration, whose backbone the recipe starts from.
    overwrite
        Replace an existing recipe.
    """
    given = {"folder": folder, "--task": task, "--classes": classes, "--class-field": class_field}
    given |= {"--bands": bands, "--backbone": backbone}
    if from_terratorch is not None:
        _refuse([name for name, value in given.items() if value is not None], "--from-terratorch")
        _from_terratorch(from_terratorch, file, checkpoint, overwrite=overwrite, as_json=as_json)
        return
    _refuse(["--checkpoint"] if checkpoint is not None else [], "a folder")
    if folder is None:
        raise GeotuneError(
            "geotune init: found no folder, expected one with images and labels, or "
            "--from-terratorch CONFIG",
            code="option-invalid",
        )
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


def _refuse(options: list[str], beside: str) -> None:
    """Raise `GeotuneError` for options that have no effect."""
    if options:
        raise GeotuneError(
            f"{', '.join(options)}: does not apply to {beside}; leave it out",
            code="option-not-applicable",
        )


def _from_terratorch(
    config: Path, file: Path | None, checkpoint: Path | None, *, overwrite: bool, as_json: bool
) -> None:
    from geotune.utils.progress import ALL_MODULES, loading_libraries

    with show_progress() as on_progress, loading_libraries(on_progress, ALL_MODULES):
        from geotune.api.from_terratorch.convert import convert
    result = convert(config, file, checkpoint=checkpoint, overwrite=overwrite)
    if as_json:
        print_json(vars(result))
        return
    for text in result.differences:
        out().print(f"[yellow]different[/yellow] {escape(text)}")
    for key, value in result.not_taken.items():
        out().print(f"[yellow]not taken over[/yellow] {escape(f'{key}: {value}')}")
    _show_next(result.recipe)


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
    _show_next(result.recipe)


def _show_next(recipe: Path) -> None:
    path = escape(shlex.quote(str(recipe)))
    out().print(f"recipe: {escape(str(recipe))}\nnext:")
    for command, purpose in (
        ("check", "the data, with a page of images and labels"),
        ("plan", "the memory of a training; with --time also its time"),
        ("fit", "train"),
    ):
        out().print(f"  geotune {command} {path}  [dim]# {purpose}[/dim]")
