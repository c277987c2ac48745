"""Training: reproducible, keeps the best epoch, follows the settings of the recipe."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from geotune.api.fitting import FitResult
from geotune.config import TrainOptions, parse_recipe
from geotune.factory.build_model import load_adapter
from geotune.training import lightning_trainer
from geotune.training.lightning_trainer import make_trainer
from geotune.training.run_dir import RunDir
from geotune.training.training_module import TrainingModule
from helpers.errors import raises
from helpers.second_pass import check_no_second_pass_is_needed

Run = Callable[..., FitResult]
GOLDEN = Path(__file__).with_name("golden_losses.json")


def tensors(run: Path) -> bytes:
    return (run / "adapter.safetensors").read_bytes()


class Recorder(Callback):
    """Records losses, learning rates, gradient norms and dtypes of a training."""

    def __init__(self) -> None:
        self.losses: list[dict[str, float]] = []
        self.rates: list[float] = []
        self.norms: list[float] = []
        self.dtypes: set[torch.dtype] = set()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, TrainingModule)
        pl_module.model.decoder.register_forward_hook(
            lambda module, inputs, output: (
                self.dtypes.add(output.dtype) if module.training else None
            )
        )

        trainer.optimizers[0].register_step_post_hook(self._stepped)

    def _stepped(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        norms = [p.grad.norm() for g in optimizer.param_groups for p in g["params"]]
        self.norms.append(float(torch.stack(norms).norm()))
        self.rates.append(optimizer.param_groups[0]["lr"])

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        metrics = trainer.callback_metrics
        self.losses.append({name: float(metrics[name]) for name in ("train/loss", "val/loss")})


def test_same_seed_gives_the_same_adapter(train: Run, tmp_path: Path) -> None:
    changes = {"train.epochs": 1}
    train(tmp_path / "one", changes)
    torch.manual_seed(123)  # earlier random draws must not matter
    train(tmp_path / "two", changes)
    train(tmp_path / "other", {**changes, "train.seed": 1})
    assert tensors(tmp_path / "one") == tensors(tmp_path / "two")
    assert tensors(tmp_path / "one") != tensors(tmp_path / "other")


@pytest.mark.parametrize("kind", ["full", "frozen", "lora", "est"])
def test_golden_losses(train: Run, tmp_path: Path, kind: str) -> None:
    """Refactoring must not change these; `golden_losses.json` describes their origin."""
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    recorder = Recorder()
    train(
        tmp_path / "run",
        {"method": golden["methods"][kind], "train.epochs": 2},
        callbacks=lambda: [recorder],
    )
    for losses, expected in zip(recorder.losses, golden["losses"][kind], strict=True):
        close = pytest.approx(expected, rel=golden["tolerance"])
        assert losses == close, f"{kind}: found {json.dumps(recorder.losses)}"


def test_best_epoch_is_kept(train: Run, tmp_path: Path) -> None:
    """A growing learning rate ruins the model, so the last epoch is not the best."""
    run = tmp_path / "run"
    changes = {"train.epochs": 4, "train.lr": 5.0, "train.warmup": 1.0, "train.grad_clip_norm": 0}
    changes |= {"task.loss": "ce", "train.schedule": "constant"}
    result = train(run, changes)
    rows = [line.split(",") for line in RunDir(run).history.read_text().splitlines()]
    column = rows[0].index("val/miou")
    scores = [float(row[column]) for row in rows[1:]]
    best = max(scores)
    assert scores[-1] < best, "the test needs a last epoch that is not the best"
    assert result.summary["best_epoch"] == scores.index(best) + 1
    metrics = RunDir(run).read_json("metrics")["val"]
    assert metrics["miou"] == pytest.approx(best, abs=1e-6)
    assert load_adapter(run).model is not None


def test_validation_loss_can_select_the_epoch_and_drive_the_schedule(
    train: Run, tmp_path: Path
) -> None:
    """A growing learning rate ruins the model, so the last epoch has not the lowest loss."""
    run = tmp_path / "run"
    changes = {"train.epochs": 4, "train.lr": 5.0, "train.warmup": 1.0, "train.grad_clip_norm": 0}
    changes |= {"train.schedule": "plateau", "train.monitor": "loss"}
    result = train(run, changes)
    losses = [row["val/loss"] for row in RunDir(run).read_history()]
    assert min(losses) < losses[-1], "the test needs a last epoch that is not the best"
    assert result.summary["best_epoch"] == losses.index(min(losses)) + 1


def test_drop_last_skips_the_smaller_last_batch(train: Run, tmp_path: Path) -> None:
    changes = {"train.epochs": 1, "data.samples": 7}
    steps = {}
    for drop_last in (False, True):
        run = tmp_path / str(drop_last)
        train(run, {**changes, "train.drop_last": drop_last})
        [row] = RunDir(run).read_history()
        steps[drop_last] = row["step"]
    assert steps == {False: 2, True: 1}
    with raises("settings-incompatible", key="train.drop_last", mentions=["3 windows"]):
        train(tmp_path / "none", {**changes, "train.drop_last": True, "data.samples": 3})


def test_constants_and_fill_are_part_of_the_adapter(train: Run, tmp_path: Path) -> None:
    constants = {"red": [500, 100], "green": [600, 100], "nir": [700.0, 110.0]}
    changes = {"train.epochs": 1, "data.normalize": constants, "data.nodata_fill": 0}
    train(tmp_path / "run", changes)
    loaded = load_adapter(tmp_path / "run").normalization
    assert loaded.offset == (500, 600, 700) and loaded.scale == (100, 100, 110)
    assert loaded.fill == (0, 0, 0)


def test_loaded_adapter_reproduces_the_metrics(
    train: Run, tmp_path: Path, tiny_values: Callable[..., dict[str, Any]]
) -> None:
    from geotune.factory.build_data import build_data
    from geotune.training.evaluate import evaluate

    result = train(tmp_path / "run", {"train.epochs": 1})
    built = load_adapter(tmp_path / "run")
    data = build_data(parse_recipe(tiny_values()))
    evaluation = evaluate(
        built.model, built.task, data.val, batch_size=4, device=torch.device("cpu")
    )
    assert evaluation.metrics == result.metrics
    assert sum(map(sum, evaluation.details["confusion"])) == 64 * 64  # each pixel once
    assert evaluation.regions["c"] == evaluation.metrics  # the only scene of the split
    assert len(evaluation.windows.scores) == 4


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"method": {"kind": "lora", "dropout": 0.3}}, id="dropout"),
        pytest.param(
            {"backbone.name": "timm/test_resnet", "method": {"kind": "full", "stem_width": 4}},
            id="batch-norm",
        ),
        pytest.param({"train.precision": "bf16-mixed", "train.accumulate_steps": 2}, id="bf16"),
    ],
)
def test_best_epoch_is_validated_once(
    tiny_values: Callable[..., dict[str, Any]], tmp_path: Path, changes: dict[str, Any]
) -> None:
    """A growing learning rate ruins the model, so that the best epoch is not the last."""
    changes |= {"train.epochs": 3, "train.lr": 1.0, "train.warmup": 1.0}
    check_no_second_pass_is_needed(parse_recipe(tiny_values(changes)), tmp_path)


def test_bf16_mixed_precision(train: Run, tmp_path: Path) -> None:
    recorder = Recorder()
    changes = {"train.epochs": 1, "train.precision": "bf16-mixed"}
    result = train(tmp_path / "run", changes, callbacks=lambda: [recorder])
    assert recorder.dtypes == {torch.bfloat16}
    assert math.isfinite(recorder.losses[-1]["train/loss"]) and result.metrics["miou"] > 0


def test_nan_loss_stops_before_anything_is_written(
    train: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from geotune.tasks.segment import Segment

    loss_sums, calls = Segment.loss_sums, []

    def broken(self: Segment, logits: torch.Tensor, masks: torch.Tensor) -> Any:
        calls.append(1)
        factor = math.nan if len(calls) == 2 else 1.0
        return {name: x * factor for name, x in loss_sums(self, logits, masks).items()}

    monkeypatch.setattr(Segment, "loss_sums", broken)
    with raises("loss-not-finite", key="train.lr", mentions=["epoch 1", "batch 2", "nan"]):
        train(tmp_path / "run", {"train.epochs": 2})
    assert not (tmp_path / "run" / "adapter.safetensors").exists()
    assert not RunDir(tmp_path / "run").last_checkpoint.exists()


def test_unknown_monitor_is_rejected(train: Run, tmp_path: Path) -> None:
    with raises("recipe-invalid", key="train.monitor", mentions=["mAP", "miou"]):
        train(tmp_path / "run", {"train.monitor": "mAP"})
    assert not (tmp_path / "run").exists()


def test_monitor_selects_the_best_epoch(train: Run, tmp_path: Path) -> None:
    result = train(tmp_path / "run", {"train.epochs": 2, "train.monitor": "val/iou/water"})
    assert result.summary["best_epoch"] in (1, 2)


def test_steps_learning_rates_and_clipping(train: Run, tmp_path: Path) -> None:
    """12 windows in micro-batches of 2, two per step: 3 steps per epoch."""
    recorder = Recorder()
    changes = {
        "train.epochs": 2,
        "data.samples": 12,
        "train.accumulate_steps": 2,
        "train.warmup": 0.34,
    }
    train(
        tmp_path / "run",
        {**changes, "train.grad_clip_norm": 1e-3, "train.lr": 0.1},
        callbacks=lambda: [recorder],
    )
    cosine = [0.05 * (1 + math.cos(math.pi * i / 4)) for i in range(4)]
    assert recorder.rates == pytest.approx([0.05, 0.1, *cosine])
    assert max(recorder.norms) <= 1e-3 * 1.001


def test_settings_reach_the_trainer(tmp_path: Path) -> None:
    settings = TrainOptions(
        epochs=7,
        grad_clip_norm=0.5,
        precision="bf16-mixed",
        accelerator="cpu",
        devices=2,
        nodes=3,
        strategy="ddp",
    )
    trainer = make_trainer(settings, RunDir(tmp_path / "run"), [])
    assert trainer.max_epochs == 7
    assert trainer.gradient_clip_val == 0.5
    assert trainer.precision == "bf16-mixed"
    assert (trainer.num_devices, trainer.num_nodes, trainer.world_size) == (2, 3, 6)
    assert type(trainer.strategy).__name__ == "DDPStrategy"
    assert (
        make_trainer(
            TrainOptions(grad_clip_norm=0, precision="32-true"), RunDir(tmp_path / "run"), []
        ).gradient_clip_val
        is None
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "key", "mentions"),
    [
        ({"train.devices": 3}, "train.batch_size", ["4", "1 x 3"]),
        ({"train.devices": 8, "train.batch_size": 8}, "train.devices", ["8", "4 windows"]),
        ({"train.accelerator": "gpu"}, None, ["train.accelerator gpu"]),
    ],
)
def test_incompatible_settings_are_rejected_before_anything_is_written(
    train: Run, tmp_path: Path, changes: dict[str, Any], key: str | None, mentions: list[str]
) -> None:
    if "train.accelerator" in changes and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with raises("settings-incompatible", key=key, mentions=mentions):
        train(tmp_path / "run", changes)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"train.batch_size": 1}, id="batches of one"),
        pytest.param({"data.samples": 5}, id="last batch of one"),
        pytest.param({"train.accumulate_steps": 4}, id="micro-batches of one"),
    ],
)
def test_batch_norm_trains_on_a_single_value_per_channel(
    train: Run, changes: dict[str, Any], tmp_path: Path
) -> None:
    """Windows of 32 pixels are a single pixel at stride 32."""
    changes |= {
        "backbone.name": "timm/test_resnet",
        "method": {"kind": "full", "stem_width": 0},
        "decoder": {"kind": "upernet", "channels": 8},
        "train.epochs": 1,
    }
    result = train(tmp_path / "run", changes)
    assert result.status == "trained" and math.isfinite(result.metrics["miou"])


def test_a_stuck_event_writer_does_not_block_an_interrupt(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Ctrl+C in a queue operation of TensorBoard's writer can leave its thread waiting."""
    stuck = threading.Event()
    closed: list[str] = []

    def close(self: TensorBoardLogger, status: str) -> None:
        stuck.wait(60)
        closed.append(status)

    monkeypatch.setattr(TensorBoardLogger, "finalize", close)
    monkeypatch.setattr(lightning_trainer, "MAX_CLOSING_SECONDS", 0.01)
    trainer = make_trainer(TrainOptions(precision="32-true"), RunDir(tmp_path), [])
    assert trainer.logger is not None
    trainer.logger.finalize("failed")
    assert closed == []
    stuck.set()
    trainer.logger.finalize("success")
    assert "success" in closed
