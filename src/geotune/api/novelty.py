"""The reference of training features in a run, with which predictions measure novelty."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geotune.adapter_config import ADAPTER_CONFIG, NOVELTY, AdapterConfig
from geotune.api.recipes import OnMessage, ignore_message
from geotune.config import load_recipe
from geotune.errors import GeotuneError
from geotune.factory.build_data import build_data
from geotune.hub.download import AdapterSource, download
from geotune.hub.manifest import file_hash
from geotune.training.lock import exclusive_lock
from geotune.training.run_dir import RunDir
from geotune.utils.atomic import write_atomically
from geotune.utils.progress import OnProgress, ignore_progress

if TYPE_CHECKING:
    import torch

    from geotune.data.datamodule import DataModule
    from geotune.data.window_datasets import GridWindowDataset
    from geotune.inference.novelty import NoveltyReference
    from geotune.model import Model

MAX_WINDOWS = 256
"""Training windows, and validation windows, whose features are compared; evenly spread."""


def novelty_reference(
    model: Model,
    data: DataModule,
    *,
    batch_size: int,
    device: torch.device,
    on_progress: OnProgress = ignore_progress,
) -> NoveltyReference | None:
    """Statistics of the features that a trained model has of its training and validation windows.

    None if there are too few windows, or features that are not finite.
    """
    import torch

    from geotune.inference.novelty import NoveltyReference, window_features
    from geotune.training.loaders import make_loader

    encoder = model.encoder
    skip = len(encoder.taps) - len(encoder.reader.taps)

    def features(windows: GridWindowDataset) -> torch.Tensor:
        groups = {scene.group for scene in windows.scenes}
        chosen = windows.subset(groups, MAX_WINDOWS)
        found: list[torch.Tensor] = []
        with torch.no_grad():
            for loaded in make_loader(chosen, batch_size, workers=0):
                batch = loaded.to(device)
                maps, _ = model.encode(**{k: v for k, v in batch.inputs.items() if k != "mask"})
                found.append(window_features(maps, batch.inputs["images"], skip).cpu())
                on_progress("novelty reference", sum(map(len, found)), len(chosen))
        return torch.cat(found) if found else torch.zeros(0, 1)

    model.to(device).eval()
    train, val = features(data.train_grid), features(data.val)
    if not (train.isfinite().all() and val.isfinite().all()):
        return None
    return NoveltyReference.fit(train, val)


def write_novelty(folder: Path, reference: NoveltyReference | None) -> str | None:
    """Write or remove the reference of a run; returns its hash."""
    path = folder / NOVELTY
    if reference is None:
        path.unlink(missing_ok=True)
        return None
    reference.save(path)
    return file_hash(path)


def add_novelty(
    run: Path | str,
    *,
    on_message: OnMessage = ignore_message,
    on_progress: OnProgress = ignore_progress,
) -> bool:
    """Add the reference to a finished run that has none; returns whether it was added.

    Raises `GeotuneError` for a run that is not finished, and for data that cannot be read.
    """
    folder = RunDir(Path(run))
    folder.read_json("run")
    values: dict[str, Any] = json.loads((folder.path / ADAPTER_CONFIG).read_text("utf-8"))
    if values["prediction"].get("novelty") is not None and (folder.path / NOVELTY).is_file():
        return False
    if values["task"].get("kind") == "reconstruct":
        return False
    recipe, _ = load_recipe(folder.recipe)
    data = build_data(recipe, on_progress)
    from geotune.api.environment import pick_device
    from geotune.factory.build_model import load_adapter

    kinds = {"backbone": values["backbone"]["name"], "method": values["method"]["kind"]}
    own = {key: kind for key, kind in kinds.items() if kind.startswith("python/")}
    with exclusive_lock(folder.path, on_message):
        built = load_adapter(folder.path, **own)
        reference = novelty_reference(
            built.model,
            data,
            batch_size=recipe.train.batch_size // recipe.train.accumulate_steps,
            device=pick_device("cpu" if recipe.train.accelerator == "cpu" else "auto"),
            on_progress=on_progress,
        )
        values["prediction"]["novelty"] = write_novelty(folder.path, reference)
        write_atomically(folder.path / ADAPTER_CONFIG, json.dumps(values, indent=2).encode())
    if reference is None:
        on_message("note: too few training or validation windows for a novelty reference")
    return reference is not None


def load_novelty(adapter: AdapterSource, config: AdapterConfig) -> NoveltyReference:
    """The reference of an adapter. Raises `GeotuneError` if there is none, or another one."""
    from geotune.inference.novelty import NoveltyReference

    path = adapter.folder / NOVELTY
    if config.prediction.novelty is None:
        advice = f"add it with geotune finish {adapter.folder}"
        if adapter.reference is not None:
            advice = "ask its author to add it with geotune finish RUN and to push it again"
        raise GeotuneError(
            f"--novelty: {adapter} has no {NOVELTY}, the reference of training features; {advice}",
            code="option-not-applicable",
            file=path,
        )
    if adapter.reference is not None:
        path = download(adapter.reference, NOVELTY).folder / NOVELTY
    if not path.is_file():
        raise GeotuneError(
            f"{path}: file not found; copy it with the adapter, or predict without --novelty",
            code="adapter-missing",
            file=path,
        )
    digest, expected = file_hash(path), config.prediction.novelty
    if digest != expected:
        raise GeotuneError(
            f"{path}: found hash {digest[:12]}, expected {expected[:12]} as in "
            f"{adapter.folder / ADAPTER_CONFIG}; copy both files again",
            code="adapter-mismatch",
            file=path,
        )
    return NoveltyReference.load(path)
