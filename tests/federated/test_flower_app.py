"""Three sites and a server: Flower's real apps and messages, without the network between them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import geotune
from geotune.adapter_config import load_adapter_config
from geotune.adapter_io import read_tensors
from geotune.errors import GeotuneError
from helpers.errors import raises

pytest.importorskip("flwr", reason="needs geotune[federated]")

from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from geotune.federated import client_app, server_app

Values = Callable[..., dict[str, Any]]

BANDS = ("red", "green", "nir")
SCENES = {1: ("a", "c"), 2: ("b", "d"), 3: ("a", "d")}
"""The training and the validation scene of each site."""


class LocalGrid(Grid):  # type: ignore[misc]
    """Calls the sites' app at once, as processes of their own would.

    `fails`: sites whose app fails, in the phase `failing`; `silent`: sites that do not answer.
    """

    def __init__(
        self,
        contexts: dict[int, Context],
        fails: Iterable[int] = (),
        failing: str = "train",
        silent: Iterable[int] = (),
    ) -> None:
        self.contexts, self.fails, self.failing = contexts, set(fails), failing
        self.silent = set(silent)
        self.trained: list[tuple[int, int]] = []

    def set_run(self, run: Any) -> None:
        raise NotImplementedError

    @property
    def run(self) -> Any:
        raise NotImplementedError

    def create_message(self, *args: Any, **options: Any) -> Message:
        raise NotImplementedError

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        raise NotImplementedError

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        raise NotImplementedError

    def get_node_ids(self) -> list[int]:
        return [*self.contexts]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        asked = [m for m in messages if m.metadata.dst_node_id not in self.silent]
        return [self._reply(message) for message in asked]

    def _reply(self, message: Message) -> Message:
        site = message.metadata.dst_node_id
        if site in self.fails and message.metadata.message_type == self.failing:
            return Message(Error(0, "the disk is full"), reply_to=message)
        if message.metadata.message_type == "train":
            self.trained.append((site, message.content.config_records["config"]["server-round"]))
        return client_app.app(message, self.contexts[site])


@pytest.fixture(autouse=True)
def running_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages carry the identity of their process, which Flower sets when it starts one."""
    for name in ("task_id", "run_id", "node_id"):
        monkeypatch.setattr(TaskIdentity, f"_{name}", 1)


@pytest.fixture
def sites(tmp_path: Path, tiny_values: Values) -> dict[int, Context]:
    """Sites with a scene for training and one for validation each, and LoRA in a ViT."""
    contexts = {}
    for site, (train, val) in SCENES.items():
        folder = tmp_path / f"site{site}"
        folder.mkdir()
        split = {"kind": "list", "train": [train], "val": [val]}
        normalize = {band: [1000.0, 500.0] for band in BANDS}
        changes = {
            "method": {"kind": "lora", "rank": 2},
            "data.split": split,
            "data.normalize": normalize,
        }
        recipe = folder / "recipe.yaml"
        recipe.write_text(yaml.safe_dump(tiny_values(changes)), encoding="utf-8")
        node = {"recipe": str(recipe), "run": str(folder / "runs")}
        contexts[site] = Context(0, site, node, RecordDict(), {})
    return contexts


def serve(out: Path, grid: Grid, **options: Any) -> None:
    context = Context(0, 0, {}, RecordDict(), {"out": str(out), "sites": 3, **options})
    server_app.app(grid, context)


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return read_tensors(folder, load_adapter_config(folder))


def test_rounds_at_three_sites(sites: dict[int, Context], tmp_path: Path) -> None:
    out, grid = tmp_path / "out", LocalGrid(sites)
    serve(out, grid, rounds=2, epochs=1)
    assert sorted(grid.trained) == [(site, number) for site in sites for number in (1, 2)]
    assert sorted(path.name for path in out.iterdir()) == ["round1", "round2", "rounds.jsonl"]
    for number in (1, 2):
        runs = [tmp_path / f"site{site}" / "runs" / f"round{number}" for site in sites]
        assert all(
            yaml.safe_load((r / "recipe.yaml").read_text())["train"]["epochs"] == 1 for r in runs
        )
        windows = [json.loads((r / "run.json").read_text())["data"]["windows"] for r in runs]
        expected = geotune.average(
            runs, tmp_path / f"expected{number}", weights=[each["train"] for each in windows]
        )
        for name, tensor in tensors_of(expected.folder).items():
            torch.testing.assert_close(tensors_of(out / f"round{number}")[name], tensor)
    starts = {yaml.safe_load((r / "recipe.yaml").read_text())["train"]["start_from"] for r in runs}
    for start in starts:  # each site has its own copy of the first average
        for name, tensor in tensors_of(Path(start)).items():
            torch.testing.assert_close(tensor, tensors_of(out / "round1")[name])
    assert len(starts) == 3
    lines = [json.loads(line) for line in (out / "rounds.jsonl").read_text().splitlines()]
    assert [(line["round"], line["phase"]) for line in lines] == [
        (1, "train"),
        (1, "validation"),
        (2, "train"),
        (2, "validation"),
    ]
    for line in lines:
        assert {*line["sites"]} == {"1", "2", "3"}
        assert all("miou" in values for values in line["sites"].values())
    model = geotune.load_adapter(out / "round2")
    assert model.classes == ("land", "water")


def test_a_site_that_fails_stops_the_round_and_the_server_continues(
    sites: dict[int, Context], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    serve(out, LocalGrid(sites), rounds=1, epochs=1)
    with raises("federation-site", mentions=["round 2, train", "site 3: the disk is full"]):
        serve(out, LocalGrid(sites, fails=[3]), rounds=3, epochs=1)
    assert not (out / "round2").exists()
    grid = LocalGrid(sites)
    serve(out, grid, rounds=3, epochs=1)
    assert sorted({number for _, number in grid.trained}) == [2, 3]
    assert (out / "round3" / "adapter.safetensors").is_file()
    grid = LocalGrid(sites)
    serve(out, grid, rounds=3, epochs=1)
    assert not grid.trained


def test_a_round_whose_validation_failed_is_repeated(
    sites: dict[int, Context], tmp_path: Path
) -> None:
    """Without training again: the sites have the runs of that round."""
    out = tmp_path / "out"
    failing = LocalGrid(sites, fails=[2], failing="evaluate")
    with raises("federation-site", mentions=["round 1, validation", "site 2", "repeat round 1"]):
        serve(out, failing, rounds=1, epochs=1)
    before = tensors_of(out / "round1")
    summaries = [tmp_path / f"site{site}/runs/round1/run.json" for site in sites]
    created = [path.stat().st_mtime_ns for path in summaries]
    serve(out, LocalGrid(sites), rounds=1, epochs=1)
    assert created == [path.stat().st_mtime_ns for path in summaries]
    for name, tensor in tensors_of(out / "round1").items():
        assert torch.equal(tensor, before[name])
    lines = [json.loads(line) for line in (out / "rounds.jsonl").read_text().splitlines()]
    assert [(line["round"], line["phase"]) for line in lines] == [(1, "train"), (1, "validation")]


def test_all_sites_that_were_asked_must_answer(sites: dict[int, Context], tmp_path: Path) -> None:
    """Also if more than the expected ones are there."""
    with raises("federation-site", mentions=["2 of 3 sites answered"]):
        serve(tmp_path / "out", LocalGrid(sites, silent=[2]), rounds=1, epochs=1, sites=2)


def test_paths_of_a_site_may_have_any_character(sites: dict[int, Context], tmp_path: Path) -> None:
    for context in sites.values():
        context.node_config["run"] += " #1: a"
    serve(tmp_path / "out", LocalGrid(sites), rounds=2, epochs=1)
    runs = Path(sites[1].node_config["run"])
    assert (runs / "round2" / "run.json").is_file()
    assert len([*runs.glob("received*")]) == 2  # the start of the last round, and its average


@pytest.mark.parametrize("number", ["../../x", 0, True])
def test_a_server_cannot_choose_folders(
    sites: dict[int, Context], tmp_path: Path, number: Any
) -> None:
    config = ConfigRecord({"server-round": number, "epochs": 1})
    message = Message(RecordDict({"config": config}), 1, "train")
    with raises("federation-message", key="server-round", mentions=[repr(number)]):
        client_app.train(message, sites[1])
    assert not Path(sites[1].node_config["run"]).exists()


def test_metrics_that_a_site_lacks_do_not_count() -> None:
    """A class that is in no window of a site's split has no metric there."""
    known = client_app._metrics({"iou/a": 0.5, "iou/b": math.nan, "miou": None}, 10)
    assert dict(known) == {"num-examples": 10, "iou/a": 0.5}
    other = client_app._metrics({"iou/a": 0.8, "iou/b": 0.2}, 30)
    contents = [RecordDict({"metrics": each}) for each in (known, other)]
    mean = dict(server_app.mean_metrics(contents, "num-examples"))
    assert mean == pytest.approx({"iou/a": (5 + 24) / 40, "iou/b": 0.2})


def test_sites_that_do_not_belong_together(sites: dict[int, Context], tmp_path: Path) -> None:
    recipe = Path(sites[2].node_config["recipe"])
    values = yaml.safe_load(recipe.read_text())
    values["method"]["rank"] = 4
    recipe.write_text(yaml.safe_dump(values))
    with raises("adapter-mismatch", mentions=["rank"]):
        serve(tmp_path / "out", LocalGrid(sites), rounds=1, epochs=1)
    sites[2].node_config.clear()
    with raises("federation-site", key="recipe", mentions=["node-config"]):
        serve(tmp_path / "out", LocalGrid(sites), rounds=1, epochs=1)


@pytest.mark.parametrize("rounds", [0, "many", True])
def test_invalid_options_of_the_app(rounds: Any, tmp_path: Path) -> None:
    with raises("option-invalid", key="rounds"):
        serve(tmp_path / "out", LocalGrid({}), rounds=rounds)


def test_messages_without_an_adapter(tmp_path: Path) -> None:
    from geotune.federated.records import write_received

    content = RecordDict({"config": ConfigRecord({"epochs": 1})})
    with raises("federation-message", mentions=["site 5", "config"]):
        write_received(tmp_path / "site", content, "site 5")
    content["config"]["adapter"] = "{"
    with pytest.raises(GeotuneError):
        write_received(tmp_path / "site", content, "site 5")
