"""`geotune card`: the STAC item of a trained model."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from geotune.adapter_config import ADAPTER_CONFIG, load_adapter_config
from geotune.api.recipes import pretraining_error
from geotune.config import load_recipe
from geotune.errors import GeotuneError
from geotune.hub.download import AdapterSource, adapter_source
from geotune.stac.fields import relative_href
from geotune.stac.model_item import ASSETS, model_item
from geotune.training.run_dir import RunDir
from geotune.utils.atomic import write_atomically

CARD = "card.json"


def card(run: Path | str, out: Path | str | None = None, *, overwrite: bool = False) -> Path:
    """Write the STAC item of a model, with the machine-learning-model extension (MLM 1.5.2).

    Args:
        run: run folder, folder with `adapter.json` and `adapter.safetensors`, or
            `hub:ORG/NAME[@REVISION]`.
        out: the file; by default `card.json` in the folder of the run, which is replaced.
        overwrite: replace an existing file of another name.

    Returns the file. Raises `GeotuneError` if there is no adapter, for an adapter of a pretraining,
    and if the file cannot be written.
    """
    source = adapter_source(run)
    if out is None and source.reference is not None:
        raise GeotuneError(
            f"{run}: is on the hub, so there is no folder for the card; name a file with --out",
            code="option-invalid",
            key="--out",
        )
    path = source.folder / CARD if out is None else Path(out)
    if out is not None and path.exists() and not overwrite:
        raise GeotuneError(
            f"{path}: exists; choose another --out, or replace it with --overwrite",
            code="output-exists",
            key="--out",
            file=path,
        )
    write_item(path, card_of(source, path.parent))
    return path


def card_of(source: AdapterSource, folder: Path) -> dict[str, Any]:
    """The item of a model, for a file in `folder`.

    Raises `GeotuneError` for an adapter of a pretraining, which predicts nothing.
    """
    config = load_adapter_config(source.folder)
    if config.sections["task"].get("kind") == "reconstruct":
        raise pretraining_error(str(source))
    files = {file for file, _ in ASSETS.values() if (source.folder / file).is_file()}
    href = _href(source, folder)
    return model_item(
        source.folder.absolute().name if source.reference is None else source.reference.repo,
        config,
        {file: href(file) for file in sorted(files)},
        **run_files(source.folder),
    )


def run_files(folder: Path) -> dict[str, Any]:
    """What the files beside an adapter say: `created`, `run`, `metrics` and `recipe`, or None."""
    directory = RunDir(folder)
    recipe = load_recipe(directory.recipe)[0] if directory.recipe.is_file() else None
    run, metrics = (_if_there(directory, name) for name in ("run", "metrics"))
    written = datetime.fromtimestamp((folder / ADAPTER_CONFIG).stat().st_mtime, UTC)
    return {
        "created": (run or {}).get("created") or written.isoformat(timespec="seconds"),
        "run": run,
        "metrics": metrics,
        "recipe": None if recipe is None else recipe.model_dump(mode="json"),
    }


def write_item(path: Path, item: dict[str, Any]) -> None:
    """Write a STAC item. Raises `GeotuneError` if the file cannot be written."""
    write_atomically(path, json.dumps(item, indent=2, ensure_ascii=False).encode())


def _href(source: AdapterSource, folder: Path) -> Callable[[str], str]:
    """References to the files of an adapter: on the hub, or relative to the item's folder."""
    reference = source.reference
    if reference is not None:
        page = f"https://huggingface.co/{reference.repo}/resolve/{reference.revision}"
        return lambda file: f"{page}/{file}"
    return lambda file: relative_href(source.folder / file, folder)


def _if_there(folder: RunDir, name: str) -> dict[str, Any] | None:
    """The content of `<name>.json`; None if the folder holds only an adapter."""
    if not (folder.path / f"{name}.json").is_file():
        return None
    values: dict[str, Any] = folder.read_json(name)
    return values
