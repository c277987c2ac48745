"""Experiment trackers of a run, MLflow and Weights & Biases, through Lightning's loggers.

Their runs continue when the training is resumed: their ids are in the run folder. Servers and
projects are those of the trackers' own environment variables, such as `MLFLOW_TRACKING_URI`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Self

import yaml

from geotune.errors import GeotuneError
from geotune.training.run_dir import RunDir, flatten_keys
from geotune.utils.atomic import write_atomically
from geotune.utils.text import first_line

if TYPE_CHECKING:
    from geotune.training.tracker_logger import TrackerLogger

TRACKERS = ("mlflow", "wandb")
"""Values of `train.loggers` that are trackers; each is also its package and an extra of geotune."""


class Trackers:
    """The trackers of a training; leaving the context closes those that are still open.

    A tracker that fails while the model trains is not used any more, and does not stop it.

    Args:
        names: `train.loggers`; those that are no trackers are ignored.
        run_dir: the run folder.
        on_message: receives where a tracker's run is, and warnings.
        required: raise `GeotuneError` if a tracker's package is not installed or its server cannot
            be reached; otherwise that is a warning.
    """

    def __init__(
        self,
        names: Sequence[str],
        run_dir: RunDir,
        on_message: Callable[[str], None] = lambda text: None,
        *,
        required: bool = True,
    ) -> None:
        self.names = [name for name in TRACKERS if name in names]
        self.run_dir = run_dir
        self.on_message = on_message
        self.required = required
        self._loggers: list[TrackerLogger] | None = None
        self._opened = False
        for name in list(self.names):
            if find_spec(name) is None:
                self.names.remove(name)
                self._refuse(
                    f"{name} is not installed; install it with: pip install 'geotune[{name}]', or "
                    "remove it from train.loggers",
                    "dependency-missing",
                )

    @property
    def loggers(self) -> list[TrackerLogger]:
        """Loggers for Lightning's trainer, which log nothing before `open`."""
        from geotune.training.tracker_logger import TrackerLogger

        if self._loggers is None:
            self._loggers = [TrackerLogger(name, self.on_message) for name in self.names]
        return self._loggers

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for logger in self.loggers if self.names else ():
            logger.close("success" if kind is None else "failed")

    def open(self) -> None:
        """Start or continue the trackers' runs, and log the run's recipe; in the main process only.

        Does nothing the second time. Raises `GeotuneError` if a required one cannot be used.
        """
        if self._opened or not self.names:
            return
        self._opened = True
        for logger in self.loggers:
            ids = self._ids()
            try:
                with logger.quiet():
                    ids[logger.tracker] = logger.open(self.run_dir.path, ids.get(logger.tracker))
                    recipe = yaml.safe_load(self.run_dir.recipe.read_text(encoding="utf-8"))
                    logger.log_recipe(flatten_keys(recipe))
            except ImportError as error:
                logger.close("failed", warn=False)
                self._refuse(
                    f"{logger.tracker} cannot be imported ({first_line(error)}); install it again "
                    f"with its dependencies: pip install --upgrade 'geotune[{logger.tracker}]', or "
                    "remove it from train.loggers",
                    "dependency-missing",
                    error,
                )
                continue
            except Exception as error:  # of the tracker's package, of any type
                logger.close("failed", warn=False)
                self._refuse(
                    f"{logger.tracker} cannot be used ({first_line(error)}); check its server and "
                    "your login, or remove it from train.loggers",
                    "tracker-failed",
                    error,
                )
                continue
            write_atomically(self.run_dir.trackers, json.dumps(ids, indent=2).encode())
            self.on_message(f"{logger.tracker}: {logger.place}")

    def finish(self, prefix: str, metrics: Mapping[str, float], files: Sequence[Path] = ()) -> None:
        """Log final metrics as `<prefix>/<name>` and files, and close the trackers' runs."""
        step = int(max((row["step"] for row in self.run_dir.read_history()), default=0))
        for logger in self.loggers if self.names else ():
            logger.log_results({f"{prefix}/{name}": x for name, x in metrics.items()}, step)
            logger.log_files([path for path in files if path.is_file()])
            logger.close("success")

    def _refuse(self, problem: str, code: str, cause: Exception | None = None) -> None:
        if self.required:
            raise GeotuneError(
                f"train.loggers: {problem}", code=code, key="train.loggers"
            ) from cause
        self.on_message(f"warning: train.loggers: {problem}")

    def _ids(self) -> dict[str, dict[str, str]]:
        """The trackers' runs of earlier processes, by tracker."""
        try:
            saved = json.loads(self.run_dir.trackers.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return saved if isinstance(saved, dict) else {}
