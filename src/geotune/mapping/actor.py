"""What a worker does with a request, in a process of this machine or of a Ray cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from geotune.mapping.workers import WorkerOptions
from geotune.utils.remote import treat_servers_by

if TYPE_CHECKING:
    from geotune.mapping.scene_writer import SceneWriter


class Actor:
    """Holds the models. Raises `GeotuneError` as `TileWorker` does.

    Args:
        options: see `WorkerOptions`, as plain values.
        servers: the driver's `server_variables`, for a worker that does not inherit them.
    """

    def __init__(
        self, options: Mapping[str, Any], servers: Mapping[str, str] | None = None
    ) -> None:
        treat_servers_by(servers or {})
        from geotune.mapping.tile_group import TileGroup

        self._group = TileGroup(WorkerOptions.from_values(options))
        self._writers: dict[int, SceneWriter] = {}

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Compute the `tile` of a number for `runs`, or write the files of a `scene` of a `run`."""
        if "tile" in request:
            return self._group.run_tile(request["tile"], request["runs"])
        return self._writer(request["run"]).write(request["scene"])

    def _writer(self, run: int) -> SceneWriter:
        from geotune.mapping.scene_writer import SceneWriter

        if run not in self._writers:
            self._writers[run] = SceneWriter(self._group.workers[run])
        return self._writers[run]
