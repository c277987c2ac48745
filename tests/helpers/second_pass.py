"""A second validation of the best epoch, to compare with the one kept from its training epoch."""

import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

from geotune.api.fitting import fit
from geotune.config import Recipe
from geotune.training.evaluate import Evaluation


def check_no_second_pass_is_needed(recipe: Recipe, folder: Path) -> None:
    """Train with and without the kept validation; numbers and pictures must be the same bits."""
    with patch("geotune.api.train_workflow.evaluate", side_effect=AssertionError("a second pass")):
        fit(recipe, run=folder / "kept")
    messages: list[str] = []
    with patch.object(Evaluation, "load", return_value=None):
        fit(recipe, run=folder / "again", on_message=messages.append)
    assert "evaluating the best epoch on the validation windows" in messages
    one, other = (metrics_of(folder / name) for name in ("kept", "again"))
    assert one == other
    for name in ("examples.npz", "adapter.json"):  # pictures; score thresholds
        assert (folder / "kept" / name).read_bytes() == (folder / "again" / name).read_bytes(), name


def metrics_of(run: Path) -> str:
    metrics: dict[str, Any] = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["val"]
    return json.dumps(metrics)
