"""What a worker does with a request, in a process of this machine or of a Ray cluster."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from geotune.mapping.workers import WorkerOptions

if TYPE_CHECKING:
    from geotune.mapping.scene_writer import SceneWriter


class Actor:
    """Holds the model. Raises `GeotuneError` as `TileWorker` does.

    Args:
        options: see `WorkerOptions`, as plain values.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        from geotune.mapping.tile_worker import TileWorker

        self._worker = TileWorker(WorkerOptions(**options))

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Compute the `tile` of a number, or write the files of a `scene`."""
        if "tile" in request:
            return self._worker.run_tile(request["tile"])
        return self._writer.write(request["scene"])

    @cached_property
    def _writer(self) -> SceneWriter:
        from geotune.mapping.scene_writer import SceneWriter

        return SceneWriter(self._worker)
