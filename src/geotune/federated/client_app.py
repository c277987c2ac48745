"""What a site does: train its recipe for a round, and validate the average.

A site is a Flower SuperNode whose node configuration names its recipe and, optionally, a folder for
its rounds: `recipe="ships.yaml" run="runs/federated"`.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from pathlib import Path
from typing import Any

from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from geotune.adapter_config import TENSORS
from geotune.api.fitting import fit
from geotune.api.testing import validate
from geotune.errors import GeotuneError
from geotune.federated.records import (
    ARRAYS,
    CONFIG,
    EPOCHS,
    IMAGES,
    METRICS,
    ROUND,
    adapter_records,
    is_count,
    write_received,
)

app = ClientApp()


@app.train()  # type: ignore[untyped-decorator]
def train(message: Message, context: Context) -> Message:
    """Train for a round from the average of the last one; from the recipe's start in the first.

    The run of a round is `<run>/round<N>`. A site that was stopped resumes it.
    """
    recipe, runs = _site(context)
    config = message.content.config_records[CONFIG]
    number = _count(config, ROUND)
    overrides = []
    if EPOCHS in config:
        overrides.append(f"train.epochs={_count(config, EPOCHS)}")
    if message.content.array_records.get(ARRAYS):
        start = _received(message.content, runs)
        for earlier in runs.glob("received*"):  # the server sends them again if they are needed
            if earlier != start:
                shutil.rmtree(earlier, ignore_errors=True)
        overrides.append(f"train.start_from={json.dumps(str(start))}")
    result = fit(recipe, overrides, run=runs / f"round{number}")
    records = adapter_records(result.run)
    records[METRICS] = _metrics(result.metrics, result.summary["data"]["windows"]["train"])
    return Message(content=records, reply_to=message)


@app.evaluate()  # type: ignore[untyped-decorator]
def evaluate(message: Message, context: Context) -> Message:
    """Validate the average on the site's own validation split."""
    recipe, runs = _site(context)
    metrics, windows = validate(recipe, _received(message.content, runs))
    content = RecordDict({METRICS: _metrics(metrics, windows)})
    return Message(content=content, reply_to=message)


def _site(context: Context) -> tuple[Path, Path]:
    """The recipe of a site and the folder of its runs."""
    config = context.node_config
    recipe = config.get("recipe")
    if not isinstance(recipe, str) or not recipe:
        raise GeotuneError(
            f"the node configuration has no recipe (found {dict(config)}); start the SuperNode "
            "with --node-config 'recipe=\"ships.yaml\"'",
            code="federation-site",
            key="recipe",
        )
    return Path(recipe).resolve(), Path(str(config.get("run", "runs/federated"))).resolve()


def _count(config: ConfigRecord, key: str) -> int:
    """A number that the server sent. Raises `GeotuneError` if it is none: it names a folder."""
    value = config.get(key)
    if not is_count(value):
        raise GeotuneError(
            f"the message of the server has {key} {value!r}, expected a whole number of 1 or more; "
            "the server and all sites need geotune's app of the same version",
            code="federation-message",
            key=key,
        )
    return value


def _received(content: RecordDict, runs: Path) -> Path:
    """The folder of a received adapter, named by its tensors: another average is another start."""
    new = runs / "received"
    write_received(new, content, "the server")
    digest = hashlib.sha256((new / TENSORS).read_bytes()).hexdigest()
    folder = runs / f"received-{digest[:12]}"
    if not folder.exists():
        new.rename(folder)
    return folder


def _metrics(metrics: dict[str, Any], images: int) -> MetricRecord:
    """Metrics without those that this split does not define, with the number of images."""
    known = {
        name: float(value)
        for name, value in metrics.items()
        if value is not None and math.isfinite(value)
    }
    return MetricRecord({IMAGES: images, **known})
