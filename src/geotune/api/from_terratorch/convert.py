"""`geotune init --from-terratorch`: write a recipe for a configuration of TerraTorch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geotune.api.from_terratorch.config_section import ConfigSection, read_config
from geotune.api.from_terratorch.data_section import MODULES, set_data
from geotune.api.from_terratorch.model_sections import ModelArguments, set_model
from geotune.api.from_terratorch.train_section import TASKS, set_task, set_training
from geotune.api.init.draft import HINT, Draft
from geotune.errors import GeotuneError
from geotune.utils.atomic import write_atomically

RUN_KEYS = ("ckpt_path", "predict_output_dir", "out_dtype", "deploy_config_file", "verbose")
"""Keys of the whole file that are options of a command."""


@dataclass(frozen=True)
class ConvertResult:
    """The outcome of `convert`.

    Attributes:
        recipe: the file.
        table: of images and labels.
        weights: of the backbone; None without a checkpoint.
        differences: what the recipe does otherwise.
        not_taken: keys of the configuration without a counterpart, with their values.
    """

    recipe: Path
    table: Path
    weights: Path | None
    differences: list[str]
    not_taken: dict[str, Any]


def convert(
    config: Path | str,
    out: Path | str | None = None,
    *,
    checkpoint: Path | str | None = None,
    overwrite: bool = False,
) -> ConvertResult:
    """Write a recipe that trains what a configuration of TerraTorch trains.

    Beside it are `<recipe>_scenes.csv`, the images and labels that TerraTorch reads, and with a
    checkpoint `<recipe>_backbone.safetensors`. No code of the configuration or the checkpoint runs.

    Args:
        config: the YAML file of `terratorch fit`.
        out: the recipe; by default `<config name>_geotune.yaml` in the current folder.
        checkpoint: `.ckpt` of its training, whose backbone the recipe starts from.
        overwrite: replace existing files.

    Raises `GeotuneError` for a file that is missing or no configuration of TerraTorch, and for a
    model, data module or backbone that geotune has no counterpart of.
    """
    config = Path(config)
    out = Path(f"{config.stem}_geotune.yaml") if out is None else Path(out)
    table = out.with_name(f"{out.stem}_scenes.csv")
    weights = None if checkpoint is None else out.with_name(f"{out.stem}_backbone.safetensors")
    for path in filter(None, (out, table, weights)):
        if path.exists() and not overwrite:
            raise GeotuneError(
                f"{path}: exists; choose another file with --out, or replace it with --overwrite",
                code="output-exists",
                file=path,
            )
    kept = table.exists()
    try:
        draft, differences, not_taken = _draft(read_config(config), table)
        if weights is not None:
            differences += _extract(Path(str(checkpoint)), weights, draft)
            draft.set("backbone.weights", str(weights), f"of {checkpoint}")
            draft.set("backbone.pretrained", None)
        draft.recipe()
    except BaseException:
        if not kept:
            table.unlink(missing_ok=True)
        raise
    write_atomically(out, draft.to_yaml(_header(config, differences, not_taken)).encode())
    return ConvertResult(out, table, weights, differences, not_taken)


def _extract(checkpoint: Path, out: Path, draft: Draft) -> list[str]:
    """See `extract_backbone`."""
    from geotune.api.from_terratorch.checkpoint import extract_backbone

    moments = draft.values["data"].get("normalize")
    known = moments if isinstance(moments, dict) else {}
    return extract_backbone(checkpoint, out, draft.values["backbone"], known)


def _draft(config: ConfigSection, table: Path) -> tuple[Draft, list[str], dict[str, Any]]:
    """The recipe, what it does otherwise, and the keys that are not taken over."""
    draft = Draft()
    model, data_entry = config.section("model"), config.section("data")
    name, task = config.object("model")
    if name not in TASKS:
        raise model.error("class_path", f"one of {', '.join(TASKS)}")
    kind = TASKS[name]
    module, data = config.object("data")
    if module != MODULES[kind]:
        raise data_entry.error("class_path", f"{MODULES[kind]}, as model.class_path is {name}")
    args = ModelArguments(task.section("model_args"))
    num_classes = data.take("num_classes", args.args.take("num_classes", 2))
    args.args.take("num_classes")
    set_model(draft, task, args, images=kind == "classify")
    differences = set_task(draft, kind, task, int(num_classes))
    bands = args.take("backbone", "bands") or args.take("backbone", "in_chans")
    args.take("backbone", "in_chans")
    ignored = task.take("ignore_index")
    differences += set_data(draft, kind, data, bands, ignored, table)
    batch_size = int(data.take("batch_size", 8))
    draft.set("train.workers", data.take("num_workers", 0))
    if data.take("drop_last", True):
        draft.set("train.drop_last", True)
    differences += set_training(draft, config, task, batch_size)
    for key in RUN_KEYS:
        config.take(key)
    return draft, differences, dict([*config.rest(), *args.rest()])


def _header(config: Path, differences: Sequence[str], not_taken: dict[str, Any]) -> list[str]:
    header = [f"Written by geotune init from {config}, a configuration of TerraTorch."]
    if differences:
        header += ["Different here:", *(f"- {text}" for text in differences)]
    if not_taken:
        header += ["Not taken over, as geotune has no counterpart:"]
        header += [f"- {key}: {str(value)[:120]}" for key, value in not_taken.items()]
    return [*header, HINT]
