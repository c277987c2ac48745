"""Workers on a Ray cluster: actors that hold the model."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from geotune.errors import GeotuneError
from geotune.mapping.workers import WorkerLostError, WorkerOptions
from geotune.utils.ray_cluster import connect
from geotune.utils.remote import server_variables


class RayWorkers:
    """Starts workers as actors with the CPU threads of the options, and a GPU if there is one.

    Every machine needs geotune, and the output folder, the run and the scenes under the same paths.

    Args:
        address: of the cluster, such as `auto` or `ray://head:10001`.
        options: of the workers.

    Raises `GeotuneError` if Ray is not installed or the cluster cannot be reached.
    """

    def __init__(self, address: str, options: WorkerOptions) -> None:
        from geotune.mapping.actor import Actor

        self._ray = connect(address)
        self._options = options
        self._workers: list[RayWorker] = []
        resources = self._ray.cluster_resources()
        threads = options.threads
        gpus = resources.get("GPU", 0) if options.device in ("auto", "gpu") else 0
        self.most = max(1, int(gpus or resources.get("CPU", 1) // threads))
        """Workers that the cluster has room for."""
        use = {"num_cpus": threads, "num_gpus": min(1, gpus)}
        self._actor = self._ray.remote(max_restarts=0, **use)(Actor)

    def start(self, number: int) -> RayWorker:
        """See `Workers`."""
        options = asdict(replace(self._options, number=number))
        actor = self._actor.remote(options, server_variables())
        worker = RayWorker(self._ray, actor)
        self._workers.append(worker)
        worker.wait(actor.__ray_ready__.remote())
        return worker

    def close(self) -> None:
        """End the workers; the connection may be used by others."""
        for worker in self._workers:
            worker.close()


class RayWorker:
    """An actor."""

    def __init__(self, ray: Any, actor: Any) -> None:
        self._ray, self._actor = ray, actor

    def ask(self, request: Any) -> dict[str, Any]:
        """See `Worker`."""
        answer: dict[str, Any] = self.wait(self._actor.ask.remote(dict(request)))
        return answer

    def wait(self, pending: Any) -> Any:
        """The value of a call. Raises the error of the worker, or `WorkerLostError`."""
        errors = self._ray.exceptions
        try:
            return self._ray.get(pending)
        except errors.RayTaskError as error:
            if isinstance(error.cause, GeotuneError):
                raise error.cause from None
            raise
        except errors.RayActorError as error:
            cause = getattr(error, "cause", None) or error.__cause__
            if isinstance(cause, GeotuneError):  # raised while the model was loaded
                raise cause from None
            raise WorkerLostError(str(error).strip().partition("\n")[0]) from error
        except errors.RayError as error:
            raise WorkerLostError(str(error).strip().partition("\n")[0]) from error

    def close(self) -> None:
        """See `Worker`."""
        self._ray.kill(self._actor)
