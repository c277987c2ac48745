"""Runs as tasks of a Ray cluster."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from geotune.bench.local_executor import Job, JobResult, LocalExecutor, StoppedError
from geotune.errors import GeotuneError

RETRIES = 3
"""How often a run is tried again whose worker has died; it goes on from its last epoch."""


class RayExecutor:
    """Does work on a cluster, in place of `LocalExecutor`.

    Every machine of it needs geotune and the suite's folder under the same path. A run takes one
    processor, and one GPU where the cluster has any.
    """

    def __init__(self, address: str) -> None:
        """Join the cluster at an address, such as `auto` or `ray://head:10001`.

        Raises `GeotuneError` where Ray is not installed or nothing answers.
        """
        try:
            ray: Any = import_module("ray")
        except ImportError as error:
            raise GeotuneError(
                "--ray: needs Ray, which is not installed; pip install 'geotune[ray]', or leave "
                "--ray out"
            ) from error
        self._ray = ray
        try:
            if not ray.is_initialized():
                ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise GeotuneError(
                f"--ray {address}: no cluster answers there ({error}); start one with ray start "
                "--head, and give its address"
            ) from error
        resources = ray.cluster_resources()
        self.processors = max(1, int(resources.get("CPU", 1)))
        options = {"num_cpus": 1, "num_gpus": min(1, resources.get("GPU", 0))}
        self._task = ray.remote(max_retries=RETRIES, **options)(_do)
        self._pending: set[Any] = set()
        self._stopped = False

    def run(self, work: Job) -> JobResult:
        """As `LocalExecutor.run`, on any machine of the cluster."""
        if self._stopped:
            raise StoppedError
        errors = self._ray.exceptions
        pending = self._task.remote(work)
        self._pending.add(pending)
        try:
            outcome: JobResult = self._ray.get(pending)
        except (errors.TaskCancelledError, errors.WorkerCrashedError) as error:
            if self._stopped:
                raise StoppedError from error
            return JobResult(f"its worker has died {RETRIES + 1} times ({error})")
        except errors.RayError as error:
            return JobResult(f"Ray: {error}")
        finally:
            self._pending.discard(pending)
        return outcome

    def stop(self) -> None:
        """End what is being done."""
        self._stopped = True
        for pending in list(self._pending):
            self._ray.cancel(pending, force=True)


def _do(work: Job) -> JobResult:
    return LocalExecutor().run(work)
