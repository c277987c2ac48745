"""One prediction at a time, in the background."""

from __future__ import annotations

import logging
import threading
from typing import Any

from geotune.errors import GeotuneError
from geotune.view.content import MapContent


class PredictJob:
    """Predicts a scene in a thread of its own.

    Args:
        content: gets the maps.
    """

    def __init__(self, content: MapContent) -> None:
        self._content = content
        self._lock = threading.Lock()
        self._state: dict[str, Any] = {"state": "idle"}

    def start(self, name: str) -> bool:
        """Start to predict a scene; False if another is predicted, or nothing can predict it."""
        with self._lock:
            if self._state["state"] == "running" or not self._content.predictors(name):
                return False
            self._state = {"state": "running", "scene": name, "done": 0, "total": 0}
        # a daemon: Ctrl+C ends the program at once
        threading.Thread(target=self._run, args=(name,), daemon=True, name="prediction").start()
        return True

    def state(self) -> dict[str, Any]:
        """`state` (idle, running, done, failed), `scene`, `done` and `total` windows, `error`."""
        with self._lock:
            return dict(self._state)

    @property
    def running(self) -> bool:
        """Whether a scene is being predicted."""
        return bool(self.state()["state"] == "running")

    def _run(self, name: str) -> None:
        def on_progress(done: int, total: int) -> None:
            self._set(done=done, total=total)

        try:
            self._content.predict(name, on_progress)
        except GeotuneError as error:
            self._set(state="failed", error=str(error))
        except Exception as error:  # the server stays, whatever the model does
            logging.getLogger("geotune").debug("prediction failed", exc_info=True)
            self._set(state="failed", error=f"{type(error).__name__}: {error}")
        else:
            self._set(state="done")

    def _set(self, **values: Any) -> None:
        with self._lock:
            self._state = {**self._state, **values}
