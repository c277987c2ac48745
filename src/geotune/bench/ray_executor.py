"""Run jobs as tasks of a Ray cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from geotune.bench.local_executor import Job, JobResult, LocalExecutor, StoppedError
from geotune.utils.ray_cluster import connect
from geotune.utils.remote import server_variables, treat_servers_by

RETRIES = 3
"""Retries of a run whose worker died; it resumes from its last epoch."""


class RayExecutor:
    """Runs jobs on a cluster, with one CPU each and one GPU if the cluster has GPUs.

    Every machine needs geotune, and the suite's folder under the same path.
    """

    def __init__(self, address: str) -> None:
        """Connect to a cluster by its address, such as `auto` or `ray://head:10001`.

        Raises `GeotuneError` if Ray is not installed or the cluster cannot be reached.
        """
        ray = connect(address)
        self._ray = ray
        resources = ray.cluster_resources()
        self.processors = max(1, int(resources.get("CPU", 1)))
        options = {"num_cpus": 1, "num_gpus": min(1, resources.get("GPU", 0))}
        self._task = ray.remote(max_retries=RETRIES, **options)(_run_job)
        self._pending: set[Any] = set()
        self._stopped = False

    def run(self, job: Job) -> JobResult:
        """As `LocalExecutor.run`, on any machine of the cluster."""
        if self._stopped:
            raise StoppedError
        errors = self._ray.exceptions
        pending = self._task.remote(job, server_variables())
        self._pending.add(pending)
        try:
            result: JobResult = self._ray.get(pending)
        except (errors.TaskCancelledError, errors.WorkerCrashedError) as error:
            if self._stopped:
                raise StoppedError from error
            return JobResult(f"the Ray worker died {RETRIES + 1} times ({error})")
        except errors.RayError as error:
            return JobResult(f"Ray: {error}")
        finally:
            self._pending.discard(pending)
        return result

    def stop(self) -> None:
        """Cancel the running jobs."""
        self._stopped = True
        for pending in list(self._pending):
            self._ray.cancel(pending, force=True)


def _run_job(job: Job, servers: Mapping[str, str]) -> JobResult:
    treat_servers_by(servers)
    return LocalExecutor().run(job)
