"""Blocks of a class map as they are stored: classes, their scores, probabilities, uncertainty."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from geotune.data.raster.source import RasterSource
from geotune.data.raster.windows import Window
from geotune.errors import GeotuneError
from geotune.inference.ensemble import entropy
from geotune.inference.geotiff import NODATA, PROBABILITY_SCALE
from geotune.inference.sliding_window import (
    ModelFn,
    OutputBlock,
    WindowOptions,
    sliding_window_inference,
)
from geotune.metrics.class_threshold import apply_thresholds

Levels = NDArray[np.uint8]


@dataclass(frozen=True)
class ClassBlock:
    """A rectangle of a class map.

    Attributes:
        row: first row.
        col: first column.
        classes: `(h, w)`, indices of the classes; `NODATA` without data.
        scores: `(h, w)`, probability of the pixel's class, times `PROBABILITY_SCALE`.
        probabilities: `(K, h, w)`, of each class, times `PROBABILITY_SCALE`, `NODATA` without data;
            None if they were not requested.
        uncertainty: `(M, h, w)`, the measures of `ClassLayers`, in the same way.
        windows: number of windows computed since the last block.
    """

    row: int
    col: int
    classes: Levels
    scores: Levels
    probabilities: Levels | None
    uncertainty: Levels | None
    windows: int


@dataclass(frozen=True, kw_only=True)
class ClassLayers:
    """What a class map holds.

    Attributes:
        classes: names.
        probabilities: whether it has those of each class.
        uncertainty: whether it has the entropy of the probabilities from 0 to 1, and of several
            members how much of it is their disagreement: the entropy of their mean minus the mean
            of their entropies (mutual information, arXiv 1112.5745).
        members: number of predictions that the model averages.
        thresholds: probabilities from which pixels get a class, see `apply_thresholds`. By default
            every pixel gets the most likely class.

    Raises `GeotuneError` for a number of classes that a map cannot have.
    """

    classes: Sequence[str]
    probabilities: bool = False
    uncertainty: bool = False
    members: int = 1
    thresholds: Mapping[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 2 <= len(self.classes) <= NODATA:
            raise GeotuneError(
                f"classes: found {len(self.classes)}, expected 2 to {NODATA} for a class map",
                code="class-count",
                key="task.classes",
            )

    @property
    def measures(self) -> list[str]:
        """The names of the measures of uncertainty."""
        return ["entropy", "disagreement"] if self.members > 1 else ["entropy"]

    @property
    def channels(self) -> int:
        """Number of the model's output channels, see `class_blocks`."""
        return len(self.classes) + (len(self.measures) - 1 if self.uncertainty else 0)


def class_blocks(
    model: ModelFn,
    source: RasterSource,
    options: WindowOptions,
    layers: ClassLayers,
    area: Window | None = None,
) -> Iterator[ClassBlock]:
    """Predict a scene, or a part of it, block by block.

    `model` maps images to class probabilities, see `sliding_window_inference`; with uncertainty of
    several members, and their mean entropy in one channel more.
    """
    outputs = sliding_window_inference(model, source, options, channels=layers.channels, area=area)
    return (class_block(block, layers) for block in outputs)


def class_block(block: OutputBlock, layers: ClassLayers) -> ClassBlock:
    """A block of blended outputs as it is stored."""
    count = len(layers.classes)
    shares = block.outputs[:count]
    chosen = apply_thresholds(shares, layers.thresholds)
    classes = chosen.to(torch.uint8).cpu().numpy()
    classes[~block.valid] = NODATA
    own = shares.gather(0, chosen[None])[0] * PROBABILITY_SCALE
    levels = None
    if layers.uncertainty:
        total = entropy(shares[None])[0]
        disagreement = (total - block.outputs[count:]).clamp(min=0)
        levels = _stored(torch.cat([total, disagreement]).clamp(max=1), block.valid)
    return ClassBlock(
        block.row,
        block.col,
        classes,
        own.round().to(torch.uint8).cpu().numpy(),
        _stored(shares, block.valid) if layers.probabilities else None,
        levels,
        block.windows,
    )


def _stored(values: torch.Tensor, valid: NDArray[np.bool_]) -> Levels:
    """Values `(K, h, w)` from 0 to 1 as they are stored."""
    stored: Levels = (values * PROBABILITY_SCALE).round().to(torch.uint8).cpu().numpy()
    stored[:, ~valid] = NODATA
    return stored
