"""Finished runs and trained models for use from Python."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geotune.adapter_config import PredictionSettings, load_adapter_config
from geotune.api.recipes import RecipeLike, as_recipe, pretraining_error
from geotune.config import Recipe, load_recipe
from geotune.data.scenes.scene import Scene
from geotune.errors import GeotuneError
from geotune.factory.open_data import open_data
from geotune.hub.download import adapter_source
from geotune.training.run_dir import RunDir
from geotune.utils.paths import ogr_path

if TYPE_CHECKING:
    import geopandas
    from torch import Tensor

    from geotune.api.scene_writers import Predicted
    from geotune.factory.build_model import BuiltModel


class TrainedModel:
    """An adapter on its backbone: raw pixel values in, predictions out.

    Attributes:
        model: the `nn.Module` with normalisation, encoder and decoder.
        task: post-processing, loss and metrics.
        bands: names of the input channels, in order.
        classes: what the outputs are.
        images: what the images of the training were like; None if unknown.
        source: the folder that it was loaded from, or `hub:ORG/NAME@COMMIT`.
        score_thresholds: minimum score of objects by class, the best in validation; empty for other
            tasks. Predictions contain objects below it, `geotune.plot` shows those from it on.
    """

    def __init__(self, built: BuiltModel, settings: PredictionSettings, source: str = "") -> None:
        from geotune.factory.build_model import score_thresholds

        if built.task.output_kind == "none":
            raise pretraining_error("the adapter")
        self.model = built.model
        self.task = built.task
        self.normalization = built.normalization
        self.notes = built.notes
        self.bands = built.normalization.bands
        self.classes = built.task.classes
        self.images = settings.images
        self.source = source
        objects = built.task.output_kind == "objects"
        self.score_thresholds = score_thresholds(settings, built) if objects else {}
        self._warned = False

    @property
    def backbone(self) -> Any:
        """The backbone of the model."""
        return self.model.encoder.backbone

    def __call__(self, pixels: NDArray[Any] | Tensor, **metadata: Tensor) -> Any:
        """Predict from raw pixel values.

        Args:
            pixels: `(C, H, W)` or `(B, C, H, W)` in the units of the training data, channels in the
                order of `bands`; NaN marks missing values. Any size, any numeric type.
            metadata: `time` and `location` for backbones that take them.

        Returns:
            Segmentation: probabilities `(K, H, W)`; regression and density: numbers `(1, H, W)`;
            classification: probabilities `(K,)`; each as float32 with a leading `B` for batches.
            Detection: `Detections` of an image, or a list of them.

        Raises:
            GeotuneError: for another number of dimensions or channels.

        The first array in units unlike those of the training gives a warning.
        """
        import torch

        x = torch.as_tensor(np.asarray(pixels, np.float32) if _is_array(pixels) else pixels)
        batched = x.ndim == 4 + (self.backbone.timesteps > 1)
        if not batched:
            x = x[None]
        if x.ndim < 4 or x.shape[1] != len(self.bands):
            raise GeotuneError(
                f"pixels: found an array of shape {tuple(np.shape(pixels))}, expected (C, H, W) or "
                f"(B, C, H, W) with the {len(self.bands)} bands {', '.join(self.bands)}",
                code="array-shape",
            )
        self._compare(x, str(getattr(pixels, "dtype", "float32")).removeprefix("torch."))
        device = next(self.model.parameters()).device
        with torch.inference_mode():
            outputs = self.model.eval()(x.float().to(device), **metadata)
            predictions = self.task.postprocess(outputs)
        if not isinstance(predictions, torch.Tensor):
            return list(predictions) if batched else predictions[0]
        values = predictions.float().cpu().numpy()
        return values if batched else values[0]

    def _compare(self, pixels: Tensor, dtype: str) -> None:
        """Warn once of pixels `(B, C, ...)` in other units than those of the training."""
        from geotune.inference.input_check import compare_pixels

        if self.images is None or self._warned:
            return
        array = pixels.detach().float().cpu().numpy()
        if note := compare_pixels(array, dtype, self.bands, self.images):
            self._warned = True
            warnings.warn(note, stacklevel=3)


def _is_array(pixels: Any) -> bool:
    return not hasattr(pixels, "detach")


class Run:
    """A finished run: its recipe, metrics, history, report and model.

    Args:
        path: the run folder.

    Raises `GeotuneError` if the folder holds no finished run.
    """

    def __init__(self, path: Path | str) -> None:
        self._folder = RunDir(Path(path))
        self.path = self._folder.path
        self.summary: dict[str, Any] = self._folder.read_json("run")

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe as it was trained."""
        return load_recipe(self._folder.recipe)[0]

    @property
    def metrics(self) -> dict[str, Any]:
        """The content of `metrics.json`: `val`, `test` after `geotune test`, and details."""
        values: dict[str, Any] = self._folder.read_json("metrics")
        return values

    @property
    def history(self) -> list[dict[str, float]]:
        """One row per epoch: losses, validation metrics, learning rate, seconds."""
        return self._folder.read_history()

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self._folder.report

    @property
    def notes(self) -> list[str]:
        """Messages for the user."""
        return list(self.summary["notes"])

    def model(
        self,
        weights: Path | str | None = None,
        *,
        backbone: str | None = None,
        method: str | None = None,
    ) -> TrainedModel:
        """The trained model; arguments as in `load_adapter`."""
        return load_adapter(self.path, weights, backbone=backbone, method=method)

    def test(self, **options: Any) -> dict[str, Any]:
        """Metrics on the test split; see `geotune.test`."""
        from geotune.api.testing import test

        return test(self.path, **options)

    def predict(
        self, scene: Path | str, out: Path | str | None = None, **options: Any
    ) -> NDArray[Any] | geopandas.GeoDataFrame | list[dict[str, str]] | list[Path]:
        """Predict one scene.

        Args:
            scene: path or pattern of the scene.
            out: output folder; None returns the prediction instead of writing it.
            options: of `geotune.predict`, such as `window` and `device`.

        Returns:
            With `out` the written files. Otherwise a class map `(H, W)` uint8 with 255 for nodata,
            a map of numbers `(H, W)` float32 with NaN for nodata, a GeoDataFrame of objects, or the
            rows of a table.
        """
        from geotune.api.prediction import predict

        if out is not None:
            return _with_warnings(predict(self.path, [str(scene)], out, **options)[0]).files
        with TemporaryDirectory() as folder:
            options = {"polygons": False, "qgis": False} | options
            result = _with_warnings(predict(self.path, [str(scene)], folder, **options)[0])
            return _read(result.files)

    def plot(self) -> Any:
        """The training curves; see `geotune.plot`."""
        from geotune.api.plotting import plot

        return plot(self)


def _with_warnings(result: Predicted) -> Predicted:
    """Warn of the notes of a prediction, which its files do not show."""
    for note in result.notes:
        warnings.warn(note, stacklevel=3)
    return result


def _read(files: Sequence[Path]) -> Any:
    """The content of a prediction's first file."""
    path = next((f for f in files if f.suffix == ".geojson"), files[0])
    if path.suffix == ".tif":
        import rasterio

        with rasterio.open(path) as file:
            return file.read(1)
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    import geopandas

    return geopandas.read_file(ogr_path(path))


def load_run(path: Path | str) -> Run:
    """Open a finished run. Raises `GeotuneError` if the folder holds none."""
    return Run(path)


def load_adapter(
    folder: Path | str,
    weights: Path | str | None = None,
    *,
    backbone: str | None = None,
    method: str | None = None,
) -> TrainedModel:
    """Load a trained model from a run folder, a folder with the two adapter files, or the hub.

    Args:
        folder: with `adapter.json` and `adapter.safetensors`, or `hub:ORG/NAME[@REVISION]`.
        weights: of the backbone, if they moved since the training.
        backbone: name of a backbone that is a Python file of yours; it confirms that its code may
            run, which an adapter alone cannot request.
        method: `method.kind` of a method that is a Python file of yours, likewise.

    Raises `GeotuneError` for files that do not belong together, for another backbone, and for
    backbone code that was not confirmed.
    """
    from geotune.factory.build_model import load_adapter as load

    source = adapter_source(folder)
    built = load(source, weights, backbone=backbone, method=method)
    return TrainedModel(built, load_adapter_config(source.folder).prediction, str(source))


def open_scenes(recipe: RecipeLike, overrides: Sequence[str] = ()) -> list[Scene]:
    """Open the scenes of a recipe's data with their labels; `scene.read(window)` reads pixels.

    Raises `GeotuneError` for files that are missing or do not fit together.
    """
    return open_data(as_recipe(recipe, overrides))
