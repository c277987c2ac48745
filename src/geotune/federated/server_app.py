"""What the server does: average the adapters of all sites after each round.

The app's configuration: `rounds`, `epochs` (per round; 0: those of each site's recipe), `sites`
(how many must be there), `timeout` (seconds of a round) and `out`, the folder of the results: the
average of each round, `round<N>`, and `rounds.jsonl` with the metrics. A server that was stopped
continues after the last round in the folder that was validated.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from logging import INFO
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from geotune.api.averaging import average
from geotune.errors import GeotuneError
from geotune.federated.records import (
    ADAPTER,
    ARRAYS,
    EPOCHS,
    IMAGES,
    METRICS,
    adapter_records,
    adapter_text,
    is_count,
    write_received,
)
from geotune.utils.atomic import write_atomically

app = ServerApp()

HISTORY = "rounds.jsonl"


class AdapterAverage(FedAvg):  # type: ignore[misc]
    """Flower's FedAvg with geotune's average: of low-rank products, and pooled batch norm.

    Every round needs all sites: the average of those that happened to answer would forget the data
    of the others.

    Args:
        out: folder of the averages.
        sites: number of sites.
        first_round: rounds before it were done earlier.
    """

    def __init__(self, out: Path, sites: int, first_round: int = 1) -> None:
        super().__init__(
            min_train_nodes=sites,
            min_evaluate_nodes=sites,
            min_available_nodes=sites,
            train_metrics_aggr_fn=mean_metrics,
            evaluate_metrics_aggr_fn=mean_metrics,
        )
        self.out = out
        self.asked = sites
        self.skipped = first_round - 1

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the average of the last round to all sites."""
        number = server_round + self.skipped
        config = _with_adapter(config, self.out / f"round{number - 1}")
        messages = [*super().configure_train(number, arrays, config, grid)]
        self.asked = len(messages)  # more sites than expected may be there
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average the sites' adapters. Raises `GeotuneError` if one is missing or does not fit."""
        number = server_round + self.skipped
        valid = self._of_all_sites(replies, number, "train")
        received = self.out / f"round{number}.sites"
        shutil.rmtree(received, ignore_errors=True)
        folders, images = [], []
        for message in sorted(valid, key=lambda m: m.metadata.src_node_id):
            site = str(message.metadata.src_node_id)
            write_received(received / site, message.content, f"site {site}")
            folders.append(received / site)
            images.append(float(message.content.metric_records[METRICS][IMAGES]))
        unfinished = self.out / f"round{number}.part"
        shutil.rmtree(unfinished, ignore_errors=True)
        for note in average(folders, unfinished, weights=images).notes:
            log(INFO, "%s", note)
        shutil.rmtree(self.out / f"round{number}", ignore_errors=True)  # of a repeated round
        unfinished.replace(self.out / f"round{number}")
        shutil.rmtree(received)
        metrics = self.train_metrics_aggr_fn([m.content for m in valid], self.weighted_by_key)
        self._record(number, "train", valid)
        arrays = adapter_records(self.out / f"round{number}").array_records[ARRAYS]
        return arrays, metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the new average to all sites."""
        number = server_round + self.skipped
        config = _with_adapter(config, self.out / f"round{number}")
        messages = [*super().configure_evaluate(number, arrays, config, grid)]
        self.asked = len(messages)
        return messages

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """The mean of the sites' metrics, weighted by their validation windows."""
        number = server_round + self.skipped
        valid = self._of_all_sites(replies, number, "validation")
        self._record(number, "validation", valid)
        contents: list[RecordDict] = [message.content for message in valid]
        metrics: MetricRecord = self.evaluate_metrics_aggr_fn(contents, self.weighted_by_key)
        return metrics

    def _of_all_sites(self, replies: Iterable[Message], number: int, phase: str) -> list[Message]:
        replies = list(replies)
        errors = [
            f"site {reply.metadata.src_node_id}: {reply.error.reason}"
            for reply in replies
            if reply.has_error()
        ]
        if errors or len(replies) < self.asked:
            found = "; ".join(errors) or f"{len(replies)} of {self.asked} sites answered"
            raise GeotuneError(
                f"round {number}, {phase}: {found}; start the same app again to repeat round "
                f"{number}, in which sites that have trained answer at once",
                code="federation-site",
                file=self.out,
            )
        return replies

    def _record(self, number: int, phase: str, replies: Iterable[Message]) -> None:
        """Write the metrics of each site to the history, in place of those of a repeated round."""
        sites = {
            str(reply.metadata.src_node_id): dict(reply.content.metric_records[METRICS])
            for reply in replies
        }
        lines = [
            line for line in _history(self.out) if (line["round"], line["phase"]) != (number, phase)
        ]
        lines.append({"round": number, "phase": phase, "sites": sites})
        text = "".join(f"{json.dumps(line)}\n" for line in lines)
        write_atomically(self.out / HISTORY, text.encode())


def mean_metrics(contents: Sequence[RecordDict], weighted_by: str) -> MetricRecord:
    """The mean of each metric over the sites that have it, weighted by their images.

    A site lacks the metric of a class that its split does not have.
    """
    sums: dict[str, float] = {}
    weights: dict[str, float] = {}
    for content in contents:
        metrics = content.metric_records[METRICS]
        weight = float(metrics[weighted_by])
        for name, value in metrics.items():
            if name != weighted_by:
                sums[name] = sums.get(name, 0.0) + weight * float(value)
                weights[name] = weights.get(name, 0.0) + weight
    return MetricRecord({name: total / weights[name] for name, total in sums.items()})


@app.main()  # type: ignore[untyped-decorator]
def main(grid: Grid, context: Context) -> None:
    """Run all rounds; the last average is the result."""
    config = context.run_config
    out = Path(str(config.get("out", "federated"))).resolve()
    rounds, sites = _count(config, "rounds", 5), _count(config, "sites", 3)
    out.mkdir(parents=True, exist_ok=True)
    done = _last_round(out)
    if done >= rounds:
        log(INFO, "%s has %s rounds already; raise rounds to train further", out, done)
        return
    start = out / f"round{done}"
    arrays = adapter_records(start).array_records[ARRAYS] if done else ArrayRecord()
    epochs = _count(config, "epochs", 0, least=0)
    options = {EPOCHS: epochs} if epochs else {}
    AdapterAverage(out, sites, done + 1).start(
        grid=grid,
        initial_arrays=arrays,
        num_rounds=rounds - done,
        train_config=ConfigRecord(options),
        timeout=float(config.get("timeout", 24 * 3600)),
    )
    log(INFO, "the average of all sites after round %s: %s", rounds, out / f"round{rounds}")


def _with_adapter(config: ConfigRecord, folder: Path) -> ConfigRecord:
    """The configuration with the text of an adapter; unchanged without one."""
    if not folder.is_dir():
        return config
    return ConfigRecord({**config, ADAPTER: adapter_text(folder)})


def _last_round(out: Path) -> int:
    """The last round whose average is in the folder and was validated; 0 if there is none."""
    names = [path.name.removeprefix("round") for path in out.glob("round*")]
    numbers = {int(name) for name in names if name.isdigit()}
    validated = {line["round"] for line in _history(out) if line["phase"] == "validation"}
    return max(numbers & validated, default=0)


def _history(out: Path) -> list[dict[str, Any]]:
    """The metrics of earlier rounds. Raises `GeotuneError` for a damaged file."""
    path = out / HISTORY
    try:
        return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise GeotuneError(
            f"{path}: not the metrics of rounds ({error}); move it away to repeat all rounds",
            code="file-unreadable",
            file=path,
        ) from error


def _count(config: Any, key: str, default: int, least: int = 1) -> int:
    value = config.get(key, default)
    if not is_count(value, least):
        raise GeotuneError(
            f"{key}: found {value!r} in the app's configuration, expected a whole number of "
            f"{least} or more",
            code="option-invalid",
            key=key,
        )
    return value
