"""Predict scenes of a run one by one, when they are asked for."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from geotune.data.raster.source import RasterSource
from geotune.view.content import Part
from geotune.view.folder import maps_of

if TYPE_CHECKING:
    from geotune.api.predictor import Predictor


class ScenePredictor:
    """A run's model, loaded at the first prediction; scenes are predicted one at a time.

    Args:
        run: the run folder.
        sources: images by the scene's name, as in the training.
        out: an existing folder; each prediction gets a folder in it.
    """

    def __init__(self, run: Path, sources: Mapping[str, RasterSource], out: Path) -> None:
        self.run, self.sources, self.out = run, sources, out
        self._lock = threading.Lock()

    @cached_property
    def _predictor(self) -> Predictor:
        from geotune.api.environment import pick_device
        from geotune.api.predict_options import LoadOptions, PredictOptions
        from geotune.api.predictor import Predictor, predicting_adapter

        adapter, config = predicting_adapter(self.run)
        maps = config.sections["task"].get("kind") == "segment"
        options = PredictOptions(probabilities=maps, uncertainty=maps, polygons=False)
        return Predictor(adapter, config, options, LoadOptions(), pick_device("auto"))

    def predict(self, name: str, on_progress: Callable[[int, int], None]) -> Part:
        """Predict a scene, with probabilities and uncertainty if it has a class map.

        `on_progress` receives finished and total windows. Raises `GeotuneError` for a model or a
        scene that cannot be read.
        """
        from geotune.api.scene_writers import write_table

        def report(phase: str, done: int, total: int, seconds_left: float | None = None) -> None:
            del phase, seconds_left
            on_progress(done, total)

        with self._lock:
            predictor = self._predictor
            source = self.sources[name]
            out = Path(tempfile.mkdtemp(dir=self.out))
            if predictor.kind == "table":
                write_table(
                    predictor.model,
                    predictor.rows,
                    {name: source},
                    out,
                    report,
                    predictor.image_options,
                )
            else:
                windows = predictor.windows(on_progress)
                blocks = predictor.steps.predict(predictor.model, source, windows)
                predictor.steps.write(blocks, source, out, windows, name=name, qgis=False)
            return maps_of(sorted(out.iterdir()), name)
