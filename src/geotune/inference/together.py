"""Several models over the same windows of a part of a scene: read, predicted and blended once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from geotune.data.raster.source import RasterSource
from geotune.data.raster.windows import Window
from geotune.inference.detection import DetectedWindow, DetectorFn, centred_on_data
from geotune.inference.sliding_window import (
    ModelFn,
    OnAreas,
    OutputBlock,
    WindowOptions,
    sliding_window_inference,
)

WIDEST = 4096
"""Largest width of a strip in pixels: that of a single model."""


@dataclass(frozen=True)
class MapModel:
    """A model of maps.

    Attributes:
        model: see `ModelFn`.
        channels: of its outputs.
    """

    model: ModelFn
    channels: int


class ModelsTogether:
    """Models of maps, with detectors beside them, which receive the same batches.

    Args:
        maps: at least one.
        detectors: they detect in the windows of the maps.
        area: the part of the scene.

    Attributes:
        detected: for each detector, what it found in the windows that start in the area, as
            `detect_windows` does; complete once `blocks` is exhausted.
    """

    def __init__(
        self, maps: Sequence[MapModel], detectors: Sequence[DetectorFn], area: Window
    ) -> None:
        self._maps, self._detectors, self._area = maps, detectors, area
        self._windows: Sequence[Window] = ()
        self._found: list[dict[tuple[int, int], DetectedWindow]] = [{} for _ in detectors]

    def blocks(self, source: RasterSource, options: WindowOptions) -> Iterator[list[OutputBlock]]:
        """The blended outputs of each model of maps, block by block.

        A strip is as wide as for a single model, so that no window is computed twice. Raises
        `GeotuneError` as `sliding_window_inference` does.
        """
        counts = [each.channels for each in self._maps]
        for block in sliding_window_inference(
            self._predict,
            source,
            replace(options, on_areas=partial(self._expect, options.on_areas)),
            channels=sum(counts),
            columns=WIDEST,
            area=self._area,
        ):
            yield [replace(block, outputs=part) for part in torch.split(block.outputs, counts)]

    @property
    def detected(self) -> list[list[DetectedWindow]]:
        """See the class."""
        return [[found[key] for key in sorted(found)] for found in self._found]

    def _expect(self, on_areas: OnAreas | None, windows: Sequence[Window]) -> None:
        self._windows = windows
        if on_areas is not None:
            on_areas(windows)

    def _predict(self, images: Tensor, **known: Any) -> Tensor:
        outputs = [each.model(images, **known).float() for each in self._maps]
        area = self._area
        for model, found in zip(self._detectors, self._found, strict=True):
            detections = model(images, **known)
            for window, image, each in zip(self._windows, images, detections, strict=True):
                if window.row >= area.row and window.col >= area.col:
                    own = centred_on_data(each, image.numpy(force=True))
                    position = window.row, window.col
                    found[position] = DetectedWindow(*position, own)
        return torch.cat(outputs, dim=1)
