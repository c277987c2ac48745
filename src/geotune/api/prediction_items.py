"""STAC items beside predictions, with those of the models that made them (`predict --stac`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import geotune
from geotune.api.stac_card import card_of, write_item
from geotune.data.raster.source import RasterSource
from geotune.hub.download import AdapterSource
from geotune.stac.prediction_item import prediction_item

Result = TypeVar("Result", bound=Any)


class PredictionItems:
    """Writes the items of predictions of one command into their folder.

    Args:
        models: the adapter, and further ones of an ensemble.
        out: the folder.
        classes: of the model; empty for numbers.
    """

    def __init__(self, models: Sequence[AdapterSource], out: Path, classes: Sequence[str]) -> None:
        self._out, self._classes = out, classes
        self._created = datetime.now(UTC).isoformat(timespec="seconds")
        self._cards: dict[str, tuple[str, dict[str, Any]]] = {}
        self._written = False
        for number, model in enumerate(models, 1):
            name = "card.json" if len(models) == 1 else f"card_{number}.json"
            item = card_of(model, out)
            self._cards[name] = (str(model.reference or item["properties"]["title"]), item)

    def write(self, result: Result, sources: Mapping[str, RasterSource]) -> Result:
        """Write the item of a prediction of these scenes; returns the result with its file."""
        if not self._written:  # with the first prediction: nothing is written before
            for name, (_, item) in self._cards.items():
                write_item(self._out / name, item)
            self._written = True
        path = self._out / f"{result.name}_item.json"
        item = prediction_item(
            result.name,
            result.files,
            sources,
            self._out,
            classes=self._classes,
            models={f"./{name}": title for name, (title, _) in self._cards.items()},
            created=self._created,
            version=geotune.__version__,
        )
        write_item(path, item)
        changed: Result = replace(result, item_path=path)
        return changed
