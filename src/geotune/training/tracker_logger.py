"""Lightning's logger of a tracker, which continues the tracker's run and never stops a training."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, MLFlowLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from geotune.utils.text import first_line

PROJECT = "geotune"
"""The experiment of MLflow and the project of Weights & Biases, unless a variable names another."""


def count_from_one(
    metrics: Mapping[str, float], step: int | None
) -> tuple[dict[str, float], int | None]:
    """Metrics and step of Lightning, which counts from 0, as `history.csv` counts them."""
    changes = {"epoch": metrics["epoch"] + 1} if "epoch" in metrics else {}
    return {**metrics, **changes}, None if step is None else step + 1


class TrackerLogger(Logger):
    """Passes what Lightning logs to its own logger of a tracker, between `open` and `close`.

    Args:
        tracker: `mlflow` or `wandb`.
        on_message: receives a warning if the tracker fails; it is closed then.

    Attributes:
        place: where the tracker's run is, for the user.
    """

    def __init__(self, tracker: str, on_message: Callable[[str], None]) -> None:
        super().__init__()
        self.tracker = tracker
        self.on_message = on_message
        self.place = ""
        self._logger: Any = None  # of Lightning; None unless open

    @property
    def name(self) -> str:
        """The tracker."""
        return self.tracker

    @property
    def version(self) -> None:
        """None: Lightning names no folder after it."""

    def open(self, run: Path, saved: Mapping[str, str] | None) -> dict[str, str]:
        """Start a run of the tracker, or continue the saved one.

        Args:
            run: the run folder, which gives its name.
            saved: what `open` returned before, if it did.

        Returns how to find the tracker's run again.
        """
        if self.tracker == "mlflow":
            return self._open_mlflow(run, saved)
        return self._open_wandb(run, saved)

    def _open_mlflow(self, run: Path, saved: Mapping[str, str] | None) -> dict[str, str]:
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        store, run_id = mlflow_store(), None
        if saved is not None and saved.get("store") == store:
            client = MlflowClient(store)
            try:
                if client.get_run(saved["run"]).info.lifecycle_stage == "active":
                    run_id = saved["run"]
                    client.update_run(run_id, status="RUNNING")
            except MlflowException:
                run_id = None  # it was removed
        self._logger = MLFlowLogger(
            os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT,
            run_name=run.resolve().name,
            tracking_uri=store,
            run_id=run_id,
        )
        self.place = f"run {self._logger.run_id} in {store}"
        return {"run": self._logger.run_id, "store": store}

    def _open_wandb(self, run: Path, saved: Mapping[str, str] | None) -> dict[str, str]:
        import wandb

        self._logger = WandbLogger(
            name=run.resolve().name,
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            save_dir=str(run),
            id=None if saved is None else saved.get("run"),
            settings=wandb.Settings(silent=True),
        )
        experiment = self._logger.experiment
        self.place = f"run {experiment.id}, {experiment.url or f'offline in {run}/wandb'}"
        return {"run": experiment.id}

    def log_recipe(self, recipe: Mapping[str, Any]) -> None:
        """Log the recipe's values by key as hyperparameters.

        MLflow cannot change a value: those of a continued run are in its file `recipe.yaml`.
        """
        logger = self._logger
        if self.tracker == "mlflow":
            known = logger.experiment.get_run(logger.run_id).data.params
            recipe = {key: value for key, value in recipe.items() if key not in known}
        logger.log_hyperparams(dict(recipe))

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Pass hyperparameters on."""
        self._attempt(lambda: self._logger.log_hyperparams(params, *args, **kwargs))

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Pass on what Lightning logs."""
        self.log_results(*count_from_one(metrics, step))

    def log_results(self, metrics: Mapping[str, float], step: int | None) -> None:
        """Log metrics after so many steps; for MLflow `val/f1/ship` as `val/f1.ship`.

        Its store of files cannot hold `val/f1`, a file, beside `val/f1/ship`.
        """
        if self.tracker == "mlflow":
            parts = {name: name.partition("/") for name in metrics}
            metrics = {
                group + slash + rest.replace("/", "."): metrics[name]
                for name, (group, slash, rest) in parts.items()
            }
        self._attempt(lambda: self._logger.log_metrics(dict(metrics), step))

    def log_files(self, paths: Sequence[Path]) -> None:
        """Attach files of the run folder."""

        def attach() -> None:
            for path in paths:
                if self.tracker == "mlflow":
                    self._logger.experiment.log_artifact(self._logger.run_id, str(path))
                else:
                    self._logger.experiment.save(
                        str(path), base_path=str(path.parent), policy="now"
                    )

        self._attempt(attach)

    def finalize(self, status: str) -> None:
        """Close after a failure; after a success, final metrics follow."""
        if status != "success":
            self.close("failed")

    def close(self, status: str, *, warn: bool = True) -> None:
        """End the tracker's run, `success` or `failed`; `open` can continue it."""
        logger, self._logger = self._logger, None
        if logger is None:
            return
        try:
            with self.quiet():
                logger.finalize(status)
                if self.tracker == "wandb":
                    logger.experiment.finish(exit_code=int(status != "success"))
        except Exception as error:  # of the tracker's package, of any type
            if warn:
                self._warn(error)

    def _attempt(self, action: Callable[[], None]) -> None:
        if self._logger is None:
            return
        try:
            with self.quiet():
                action()
        except Exception as error:  # of the tracker's package, of any type
            self._warn(error)
            self.close("failed", warn=False)

    def _warn(self, error: Exception) -> None:
        self.on_message(
            f"warning: {self.tracker} failed ({first_line(error)}) and is not used any more in "
            "this training; history.csv has all metrics"
        )

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Hide notes of the tracker and of Lightning about experiments and names."""
        logger = logging.getLogger("lightning.pytorch.loggers.mlflow")
        level = logger.level
        logger.setLevel(logging.ERROR)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*MLFlow only allows.*")
                warnings.filterwarnings("ignore", message=".*[Ff]ilesystem tracking backend.*")
                yield
        finally:
            logger.setLevel(level)


def mlflow_store() -> str:
    """Where MLflow's runs go: `MLFLOW_TRACKING_URI`, else files in the folder `mlruns`.

    MLflow keeps new features out of stores of files, and asks for a confirmation to use one; the
    small package `mlflow-skinny` has no other local store.
    """
    store = os.environ.get("MLFLOW_TRACKING_URI")
    if store is None:
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        store = Path("mlruns").resolve().as_uri()
    return store
