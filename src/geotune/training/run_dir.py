"""The run folder: results of a training, and the state from which it resumes."""

from __future__ import annotations

import csv
import io
import json
import shutil
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from geotune.adapter_config import ADAPTER_CONFIG, NOVELTY, TENSORS, unfinished_advice
from geotune.config import Recipe, dump_recipe, load_recipe
from geotune.errors import GeotuneError
from geotune.hub.reference import is_hub_name
from geotune.training.lock import LOCK_FILE
from geotune.utils.atomic import write_atomically
from geotune.utils.json_values import nan_to_none

State = Literal["new", "unfinished", "finished"]
RESULT_FILES = (
    "run.json", "metrics.json", "history.csv", "report.html", "examples.npz", "test_windows.npz",
    "worst_val.gpkg", "worst_val.qml", "worst_test.gpkg", "worst_test.qml",
    "backbone.safetensors", "card.json", TENSORS, ADAPTER_CONFIG, NOVELTY,
)  # fmt: skip
"""Files that exist only after the first completed epoch."""
OWNED_FILES = (
    *RESULT_FILES, "checkpoint", "tensorboard", "trackers.json", "wandb", "asked.yaml",
    "recipe.yaml",
)  # fmt: skip
"""Everything that geotune writes, in the order of removal; `recipe.yaml` marks ownership."""
METRIC_SECTIONS = ("val", "test", "headline", "regions", "gap")
"""Entries of `metrics.json`; all others are details of the task, by split."""
LOCATION_KEYS = (
    "train.run", "train.cache_folder", "train.cache_limit", "train.keep_checkpoint",
    "train.loggers",
)  # fmt: skip
"""Recipe keys that do not affect the result."""
AUTO_OPTIONS = ("precision", "activation_checkpointing")
"""Options of `train` that can be `auto`; the run's recipe has the choice."""


@dataclass(frozen=True)
class RunDir:
    """Paths and small files of a run."""

    path: Path

    def __post_init__(self) -> None:
        if is_hub_name(self.path):
            raise GeotuneError(
                f"{self.path}: found a name on the hub, expected a run folder on this machine; "
                "geotune predict, map, embed, export, card, average and fit --from take adapters "
                "of the hub",
                code="hub-name",
            )

    @property
    def recipe(self) -> Path:
        """The resolved recipe."""
        return self.path / "recipe.yaml"

    @property
    def requested_recipe(self) -> Path:
        """The recipe as given, if it was changed to fit into memory."""
        return self.path / "asked.yaml"

    @property
    def history(self) -> Path:
        """One row per epoch."""
        return self.path / "history.csv"

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.path / "report.html"

    @property
    def examples(self) -> Path:
        """The best and worst validation windows."""
        return self.path / "examples.npz"

    @property
    def trackers(self) -> Path:
        """The runs of experiment trackers that belong to this run, see `Trackers`."""
        return self.path / "trackers.json"

    @property
    def test_windows(self) -> Path:
        """Metric state of each test window, see `WindowMetrics`."""
        return self.path / "test_windows.npz"

    @property
    def backbone(self) -> Path:
        """Weights of a backbone whose pretraining was continued."""
        return self.path / "backbone.safetensors"

    @property
    def last_checkpoint(self) -> Path:
        """The checkpoint of the last completed epoch."""
        return self.path / "checkpoint" / "last.ckpt"

    @property
    def previous_checkpoint(self) -> Path:
        """The checkpoint of the epoch before, in case the last one is damaged."""
        return self.path / "checkpoint" / "previous.ckpt"

    @property
    def checkpoints(self) -> list[Path]:
        """The checkpoints that exist, damaged or not, the newest first."""
        return [p for p in (self.last_checkpoint, self.previous_checkpoint) if p.is_file()]

    @property
    def best_weights(self) -> Path:
        """Trained tensors of the best epoch so far."""
        return self.path / "checkpoint" / "best.safetensors"

    @property
    def best_validation(self) -> Path:
        """Validation of the best epoch so far, see `Evaluation`."""
        return self.path / "checkpoint" / "best_validation.npz"

    @property
    def offloaded_backbone(self) -> Path:
        """The frozen backbone while training from a cache."""
        return self.path / "checkpoint" / "backbone.pt"

    def find_checkpoint(self, on_message: Callable[[str], None] = lambda text: None) -> Path | None:
        """The newest undamaged checkpoint, from which training resumes; None if there is none.

        Reports damaged checkpoints to `on_message`, and removes them if another is left, so that
        they are not kept in its place. Raises `GeotuneError` if all are damaged, or the weights of
        the best epoch.
        """
        existing = self.checkpoints
        problems: dict[Path, str] = {}
        for path in existing:
            problem = _damage(path)
            if problem is None:
                self._check_best_weights()
                for damaged in problems:
                    damaged.unlink()
                return path
            problems[path] = problem
            on_message(f"warning: {path}: damaged ({problem}); trying the epoch before")
        if problems:
            path = existing[0]
            raise GeotuneError(
                f"{path}: damaged ({problems[path]}), as are all checkpoints of the run; start "
                "again with --overwrite",
                code="checkpoint-invalid",
                key="train.run",
                file=path,
            )
        return None

    def _check_best_weights(self) -> None:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            load_file(self.best_weights)
        except (OSError, SafetensorError) as error:
            raise GeotuneError(
                f"{self.best_weights}: the weights of the best epoch are missing or damaged "
                f"({error}); start again with --overwrite",
                code="checkpoint-invalid",
                key="train.run",
                file=self.best_weights,
            ) from error

    def state(self, recipe: Recipe) -> State:
        """Progress of this recipe in the folder; `new` before the first completed epoch.

        Raises `GeotuneError` if the folder holds a run of another recipe or other content.
        """
        self.check_owned()
        if not (self.recipe.is_file() and self.has_checkpoint):
            return "new"
        other = self.differences(recipe)
        if other:
            continues = all(c.startswith(("train.epochs:", "train.patience:")) for c in other)
            advice = f"geotune fit {self.path} train.epochs=N continues it, " * continues
            more = f"; and {len(other) - 6} more keys" if len(other) > 6 else ""
            raise GeotuneError(
                f"{self.path}: holds a run of another recipe ({'; '.join(other[:6])}{more}); "
                f"{advice}choose another train.run, or replace it with --overwrite",
                code="run-exists",
                key="train.run",
                file=self.path,
            )
        return "finished" if self.has_summary else "unfinished"

    def differences(self, recipe: Recipe) -> list[str]:
        """Changes from the saved recipe, if any, to this one; see `changed_keys`."""
        return changed_keys(load_recipe(self.recipe)[0], recipe) if self.recipe.is_file() else []

    def is_finished(self, recipe: Recipe) -> bool:
        """Whether the training of this recipe is complete."""
        return self.has_summary and not self.differences(recipe)

    @property
    def has_summary(self) -> bool:
        """Whether a training was completed, and not continued since."""
        return (self.path / "run.json").is_file()

    @property
    def has_checkpoint(self) -> bool:
        """Whether at least one epoch was completed."""
        files = [self.path / name for name in RESULT_FILES]
        checkpoints = [self.best_weights, self.last_checkpoint, self.previous_checkpoint]
        return any(path.exists() for path in [*files, *checkpoints])

    def with_saved_defaults(self, recipe: Recipe) -> Recipe:
        """The recipe with the precision and memory settings that the run has chosen."""
        recipe = self.with_saved_choices(recipe)
        if not (self.requested_recipe.is_file() and self.recipe.is_file()):
            return recipe
        if changed_keys(load_recipe(self.requested_recipe)[0], recipe):
            return recipe
        changed = load_recipe(self.recipe)[0]
        keys = [key.removeprefix("train.") for key in LOCATION_KEYS]
        return changed.with_train(**{key: getattr(recipe.train, key) for key in keys})

    def with_saved_choices(self, recipe: Recipe) -> Recipe:
        """The recipe with the saved choices of this run in place of `auto`."""
        open_options = [name for name in AUTO_OPTIONS if getattr(recipe.train, name) == "auto"]
        if not open_options or not self.recipe.is_file():
            return recipe
        saved = load_recipe(self.recipe)[0].train
        return recipe.with_train(**{name: getattr(saved, name) for name in open_options})

    def requested(self, recipe: Recipe) -> Recipe:
        """The requested recipe with the duration of `recipe`, a continuation of the saved one."""
        if not self.requested_recipe.is_file():
            return recipe
        train = recipe.train
        return load_recipe(self.requested_recipe)[0].with_train(
            epochs=train.epochs, patience=train.patience
        )

    def create(self, recipe: Recipe, requested: Recipe | None = None) -> None:
        """Create the folder and write the recipe, and the requested one if it differs."""
        if requested is not None and changed_keys(requested, recipe):
            write_atomically(self.requested_recipe, dump_recipe(requested).encode())
        write_atomically(self.recipe, dump_recipe(recipe).encode())

    def reopen(self) -> None:
        """Mark a finished run as unfinished; its results stay until new ones replace them."""
        (self.path / "run.json").unlink(missing_ok=True)
        self.test_windows.unlink(missing_ok=True)
        for path in self.path.glob("worst_test.*"):
            path.unlink()

    def remove_checkpoints(self, *, keep_last: bool) -> None:
        """Remove what a finished run does not need, except what it continues from."""
        folder = self.last_checkpoint.parent
        kept = (self.last_checkpoint, self.best_weights, self.best_validation) if keep_last else ()
        for path in folder.iterdir() if folder.is_dir() else ():
            if path not in kept:
                path.unlink(missing_ok=True)
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)

    def check_owned(self) -> None:
        """Raise `GeotuneError` if the folder exists and is not a run of geotune."""
        if not self.path.exists() or self.recipe.is_file():
            return
        if not self.path.is_dir() or any(not _is_leftover(path) for path in self.path.iterdir()):
            raise GeotuneError(
                f"{self.path}: exists and is not a run of geotune; choose another train.run",
                code="folder-not-owned",
                key="train.run",
                file=self.path,
            )

    def clear(self) -> None:
        """Remove the files that geotune wrote; others stay."""
        for name in OWNED_FILES:
            path = self.path / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def write_json(self, name: str, values: Any) -> None:
        """Write `<name>.json`; NaN and infinity become null."""
        text = json.dumps(nan_to_none(values), indent=2, ensure_ascii=False, default=str)
        write_atomically(self.path / f"{name}.json", text.encode())

    def read_json(self, name: str) -> Any:
        """Read `<name>.json`. Raises `GeotuneError` if it is missing or invalid."""
        path = self.path / f"{name}.json"
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise GeotuneError(
                f"{path}: file not found; "
                + (
                    unfinished_advice(self.path)
                    or f"{self.path} is no completed run; run geotune fit first"
                ),
                code="run-incomplete",
                file=path,
            ) from error
        except (OSError, ValueError) as error:
            raise GeotuneError(
                f"{path}: invalid JSON ({error})", code="file-unreadable", file=path
            ) from error

    def write_history(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Write one row per completed epoch; rows may lack columns of others."""
        text = io.StringIO()
        names = list(dict.fromkeys(name for row in rows for name in row))
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(self.history, text.getvalue().encode())

    def read_history(self) -> list[dict[str, float]]:
        """One row per completed epoch; NaN for what was not recorded."""
        if not self.history.is_file():
            return []
        with self.history.open(encoding="utf-8", newline="") as file:
            return [
                {name: float(value or "nan") for name, value in row.items()}
                for row in csv.DictReader(file)
            ]

    def details(self, split: str) -> dict[str, Any]:
        """Further results of the task on a split, `val` or `test`."""
        return {
            name: values[split]
            for name, values in self.read_json("metrics").items()
            if name not in METRIC_SECTIONS and isinstance(values, dict) and split in values
        }


def _is_leftover(path: Path) -> bool:
    """Whether a file was left by a process that was killed before it wrote the recipe."""
    return path.name == LOCK_FILE or (path.name.startswith(".") and path.suffix == ".part")


def changed_keys(before: Recipe, now: Recipe) -> list[str]:
    """Differences between two recipes; see `changed_values`."""
    return changed_values(before.model_dump(mode="json"), now.model_dump(mode="json"))


def changed_values(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Differences between sections of two recipes, as plain values, as `key: before -> now`.

    `LOCATION_KEYS` are ignored. If the kind of a section changed, its other keys are not listed.
    """
    old, new = flatten_keys(dict(before)), flatten_keys(dict(now))
    changed = [
        key
        for key in sorted(old.keys() | new.keys())
        if key not in LOCATION_KEYS and old.get(key, "absent") != new.get(key, "absent")
    ]
    new_sections = tuple(key.removesuffix("kind") for key in changed if key.endswith(".kind"))
    return [
        f"{key}: {old.get(key, 'absent')} -> {new.get(key, 'absent')}"
        for key in changed
        if key.endswith(".kind") or not key.startswith(new_sections)
    ]


def flatten_keys(values: Any, prefix: str = "") -> dict[str, Any]:
    """Values of nested sections by full key, such as `train.lr`."""
    if not isinstance(values, dict):
        return {prefix: values}
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten_keys(value, f"{prefix}.{key}" if prefix else key)
    return flat


def _damage(path: Path) -> str | None:
    """Why a checkpoint, a ZIP archive with checksums, cannot be loaded; None if it can."""
    import torch

    try:
        with zipfile.ZipFile(path) as archive:
            entry = archive.testzip()
        if entry is not None:
            return f"wrong checksum of {entry}"
        loaded = torch.load(path, map_location="meta", weights_only=True)
    except Exception as error:  # damaged bytes raise errors of any type
        return str(error).partition("\n")[0] or type(error).__name__
    is_checkpoint = isinstance(loaded, dict) and "pytorch-lightning_version" in loaded
    return None if is_checkpoint else "not a checkpoint of a training"
