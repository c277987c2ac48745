"""Copy an adapter so that it can be loaded on another machine, without paths of this one."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from geotune.adapter_config import NOVELTY, AdapterConfig, load_adapter_config
from geotune.adapter_io import read_tensors, write_adapter
from geotune.api.novelty import load_novelty
from geotune.backbones.continued import read_header
from geotune.errors import GeotuneError
from geotune.hub.download import BACKBONE, AdapterSource
from geotune.hub.reference import is_hub_name


def share_adapter(run: Path, folder: Path) -> tuple[AdapterConfig, list[str]]:
    """Write the adapter of a run to a folder, with a backbone that geotune pretrained.

    Returns what was written and notes for the user. Raises `GeotuneError` if the files of the run
    do not belong together.
    """
    config = load_adapter_config(run)
    state = read_tensors(run, config)
    own = run / BACKBONE
    if own.is_file():
        shutil.copyfile(own, folder / BACKBONE)
    if config.prediction.novelty is not None:
        load_novelty(AdapterSource(run), config)  # that of this adapter
        shutil.copyfile(run / NOVELTY, folder / NOVELTY)
    config, notes = _with_shared_weights(config, run, folder)
    config = replace(config, sections=_without_folders(config.sections))
    write_adapter(folder, state, config)
    return config, notes


def _with_shared_weights(
    config: AdapterConfig, run: Path, folder: Path
) -> tuple[AdapterConfig, list[str]]:
    """The config with weights that others have, too: on the hub, or beside the adapter."""
    weights: str | None = config.sections["backbone"].get("weights")
    if weights is None or is_hub_name(weights):
        return config, []
    path = run / BACKBONE if weights == BACKBONE else Path(weights)
    name, notes = path.name, []
    header = read_header(path)
    if header is not None and (path == run / BACKBONE or not (folder / BACKBONE).exists()):
        if header.fingerprint != config.base["fingerprint"]:
            raise GeotuneError(
                f"{path}: has other weights than those that {run} was trained on; restore the file",
                code="adapter-base",
                file=path,
            )
        name = BACKBONE
        if path != run / BACKBONE:
            shutil.copyfile(path, folder / BACKBONE)
    else:
        notes = [
            f"the backbone's weights are a file, {name}, which is not uploaded: whoever loads the "
            "adapter needs it, for --weights"
        ]
    section = {**config.sections["backbone"], "weights": name}
    base = {**config.base, "source": config.base["source"].replace(weights, name)}
    return replace(config, base=base, sections={**config.sections, "backbone": section}), notes


def _without_folders(sections: dict[str, Any]) -> dict[str, Any]:
    """The sections with Python files by their names alone, which have to be confirmed anyway."""
    named = {"backbone": "name", "method": "kind"}
    changed = dict(sections)
    for section, key in named.items():
        value = str(sections[section].get(key, ""))
        if value.startswith("python/"):
            changed[section] = {**sections[section], key: f"python/{Path(value).name}"}
    return changed
