"""Fitting to data what a method fits before it trains."""

from __future__ import annotations

from geotune.data.window_datasets import FixedWindowDataset, RandomWindowDataset
from geotune.model import Model
from geotune.types import Batch


def calibrate(model: Model, windows: RandomWindowDataset | FixedWindowDataset) -> None:
    """Show the model as many windows as its reader asks for."""
    some = range(min(model.encoder.reader.samples, len(windows)))
    if some:
        model.calibrate(Batch.of([windows[i]]).inputs for i in some)
