"""`geotune pretrain`: continue a backbone's pretraining on images without labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from geotune.api.fitting import FitResult, fit
from geotune.api.recipes import OnMessage, RecipeLike, ignore_message, recipe_name
from geotune.config import Recipe, apply_overrides, load_recipe, parse_recipe
from geotune.config.decoder_options import DecoderOptions
from geotune.config.loader import read_values
from geotune.errors import GeotuneError
from geotune.registry import DECODERS, TASKS
from geotune.training.run_dir import RunDir
from geotune.utils.progress import OnProgress, ignore_progress

DECODER = {"kind": "linear", "upsample": "stride"}
"""The head of SimMIM and GFM, for every map: a linear probe of each pixel."""
METRICS = ("loss", "masked_l1", "cosine_distance")


def pretrain(
    recipe: RecipeLike,
    overrides: Sequence[str] = (),
    *,
    run: Path | str | None = None,
    overwrite: bool = False,
    estimate_memory: bool = False,
    on_message: OnMessage = ignore_message,
    on_progress: OnProgress = ignore_progress,
    callbacks: Callable[[], Sequence[Any]] = list,
) -> FitResult:
    """Continue the pretraining of a recipe's backbone on its images; labels are not read.

    Patches of each window are hidden, and the model learns to reconstruct them and to find the
    features that the original backbone has of the whole window (GFM, arXiv 2302.04476). The run has
    the files of `fit`. Methods that change the backbone's weights also give `backbone.safetensors`,
    which `backbone.weights` of later recipes accepts; the others an adapter, from which
    `train.start_from` of a recipe with the same method starts.

    Args:
        recipe: of any task, or without task and decoder; or a run folder, to resume or continue it.
        overrides: changes such as `method.kind=full` or `task.mask_ratio=0.75`.
        run: the run folder; by default `train.run` or `runs/<recipe name>` with `_pretrain` added.
        overwrite: see `fit`, as for the other arguments.
        estimate_memory: see `fit`.
        on_message: see `fit`.
        on_progress: see `fit`.
        callbacks: see `fit`.

    Raises `GeotuneError` as `fit` does, and for settings that exclude a pretraining.
    """
    options: dict[str, Any] = {
        "overwrite": overwrite,
        "estimate_memory": estimate_memory,
        "on_message": on_message,
        "on_progress": on_progress,
        "callbacks": callbacks,
    }
    if isinstance(recipe, str | Path) and Path(recipe).is_dir():
        _check_pretraining(Path(recipe))
        return fit(recipe, overrides, **options)
    parsed = pretraining_recipe(recipe, overrides, on_message)
    if run is None:
        run = parsed.train.run or Path("runs") / f"{recipe_name(recipe)}_pretrain"
    return fit(parsed, run=run, **options)


def _check_pretraining(folder: Path) -> None:
    """Raise `GeotuneError` if the run in a folder is no pretraining."""
    saved = RunDir(folder).recipe
    if saved.is_file() and load_recipe(saved)[0].task.kind != "reconstruct":
        kind = load_recipe(saved)[0].task.kind
        raise GeotuneError(
            f"{folder}: the run has task.kind {kind}, it is no pretraining; name a recipe, such as "
            f"{saved}, or continue the run with geotune fit",
            code="settings-incompatible",
            key="task.kind",
            file=folder,
        )


def pretraining_recipe(
    recipe: RecipeLike, overrides: Sequence[str] = (), on_message: OnMessage = ignore_message
) -> Recipe:
    """The recipe of a pretraining for the recipe of a later task, with which it shares the rest.

    Task and decoder are replaced, unless the task is `reconstruct` already, and keys of labels left
    out. The method gets the options that it will have with the later decoder. Notes go to
    `on_message`. Raises `RecipeError` as `as_recipe` does.
    """
    source = "recipe"
    if isinstance(recipe, str | Path):
        source = str(recipe)
        values = read_values(Path(recipe), "a recipe", "backbone")
    elif isinstance(recipe, Recipe):
        values = recipe.model_dump(mode="json", exclude_unset=True)
    else:
        values = deepcopy(dict(recipe))
    own = [o for o in overrides if o.startswith(("task.", "task=", "decoder.", "decoder="))]
    run_given = any(o.startswith("train.run=") for o in overrides)
    notes = apply_overrides(values, [o for o in overrides if o not in own])
    if _section(values, "task").get("kind") != "reconstruct":
        notes += _replace_task(values, keep_run=run_given)
    notes += apply_overrides(values, own)
    parsed = parse_recipe(values, source)
    for note in notes:
        on_message(f"note: {note}")
    return parsed


def _replace_task(values: dict[str, Any], *, keep_run: bool) -> list[str]:
    """Make the values of a recipe those of its pretraining; returns notes for the user."""
    notes = []
    method, data, train = (_section(values, name) for name in ("method", "data", "train"))
    decoder = _decoder_options(_section(values, "decoder"))
    if decoder is not None and method:
        if not decoder.reads_stem:
            method["stem_width"] = 0
        if method.get("kind") == "est" and decoder.level == "image":
            method.setdefault("output", "sum")
    for key in {key for one in TASKS.values() for key in one.load_options().data_keys}:
        data.pop(key, None)
    monitor = train.get("monitor")
    if monitor is not None and str(monitor).removeprefix("val/") not in METRICS:
        del train["monitor"]
        notes.append(f"train.monitor {monitor} is no metric of a pretraining: masked_l1 is used")
    if train.get("run") is not None and not keep_run:
        train["run"] = f"{str(train['run']).rstrip('/')}_pretrain"
    sections = {"method": method, "data": data, "train": train}
    values |= {name: section for name, section in sections.items() if section}
    values.pop("distill", None)  # of the later task
    values |= {"task": {"kind": "reconstruct"}, "decoder": dict(DECODER)}
    return notes


def _section(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = values.get(name)
    return dict(section) if isinstance(section, Mapping) else {}


def _decoder_options(section: Mapping[str, Any]) -> DecoderOptions | None:
    """The options of the later task's decoder; None if there is none, or an invalid one."""
    component = DECODERS.get(str(section.get("kind")))
    if component is None:
        return None
    try:
        options: DecoderOptions = component.load_options()(**section)
    except ValidationError:
        return None
    return options
