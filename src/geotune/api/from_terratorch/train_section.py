"""Task and training of a recipe from TerraTorch's task, trainer and optimizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from geotune.api.from_terratorch.config_section import ConfigSection, objects
from geotune.api.init.draft import Draft

TASKS = {
    "SemanticSegmentationTask": "segment",
    "PixelwiseRegressionTask": "regress",
    "ClassificationTask": "classify",
}
"""TerraTorch's tasks, and the kind of task in recipes."""
LOSSES = {"mse": "l2", "rmse": "l2", "mae": "l1", "huber": "huber"}
PRECISIONS = {
    "32": "32-true", "32-true": "32-true", "16": "16-mixed", "16-mixed": "16-mixed",
    "bf16": "bf16-mixed", "bf16-mixed": "bf16-mixed",
}  # fmt: skip
LOGGERS = {
    "TensorBoardLogger": "tensorboard", "CSVLogger": "csv", "MLFlowLogger": "mlflow",
    "WandbLogger": "wandb",
}  # fmt: skip
SCHEDULES = {"CosineAnnealingLR": "cosine", "ReduceLROnPlateau": "plateau"}


def set_task(draft: Draft, kind: str, task: ConfigSection, num_classes: int) -> list[str]:
    """Set the task. Returns what differs, for the user."""
    notes: list[str] = []
    draft.set("task.kind", kind)
    loss = task.take("loss", "mse" if kind == "regress" else "ce")
    terms = [loss] if isinstance(loss, str) else [*map(str, loss)]
    if kind == "regress":
        draft.set("task.loss", LOSSES.get(terms[0], "l2"))
        if terms != ["mse"] and LOSSES.get(terms[0]) in (None, "l2"):
            notes.append(f"model.init_args.loss: {', '.join(terms)} became l2")
        return notes
    names = task.take("class_names") or [f"class{i}" for i in range(num_classes)]
    comment = "" if task.values.get("class_names") else "TerraTorch has no names; rename them"
    draft.set("task.classes", [str(name) for name in names], comment)
    if (weights := task.take("class_weights")) is not None:
        draft.set("task.class_weights", weights)
    known = [term for term in terms if term in ("ce", "dice", "focal")]
    if kind == "segment":
        draft.set("task.loss", "+".join(known) or "ce+dice")
    other = [term for term in terms if term not in known]
    if other:
        notes.append(f"model.init_args.loss: geotune has no {', '.join(other)}")
    if isinstance(loss, Mapping) and len({float(value) for value in loss.values()}) > 1:
        notes.append(f"model.init_args.loss: the weights {dict(loss)} became equal")
    return notes


def set_training(
    draft: Draft, config: ConfigSection, task: ConfigSection, batch_size: int
) -> list[str]:
    """Set duration, optimisation and devices. Returns what differs, for the user."""
    notes: list[str] = []
    trainer = config.section("trainer")
    epochs = trainer.take("max_epochs", 100)
    draft.set("train.epochs", epochs)
    if trainer.values.get("max_epochs") is None:
        notes.append(f"trainer.max_epochs: not given; {epochs} epochs")
    steps = int(trainer.take("accumulate_grad_batches", 1))
    draft.set("train.batch_size", batch_size * steps)
    if steps > 1:
        draft.set("train.accumulate_steps", steps)
    lr, decay = _optimizer(config, task, notes)
    draft.set("train.lr", lr)
    if draft.values["method"]["kind"] == "full":
        draft.set("train.backbone_lr", lr, "as in TerraTorch; by default a tenth of train.lr")
    draft.set("train.weight_decay", decay)
    draft.set("train.decay_all", True, "as a plain optimizer does")
    name, _ = config.object("lr_scheduler")
    name = name or str(task.take("scheduler", ""))
    task.take("scheduler_hparams")
    draft.set("train.schedule", SCHEDULES.get(name, "constant"))
    if name and name not in SCHEDULES:
        notes.append(f"lr_scheduler: geotune has no {name}; its learning rate is constant")
    draft.set("train.warmup", 0)
    draft.set("train.grad_clip_norm", trainer.take("gradient_clip_val", 0))
    precision = str(trainer.take("precision", "32"))
    draft.set("train.precision", PRECISIONS.get(precision, "auto"))
    if precision not in PRECISIONS:
        notes.append(f"trainer.precision: geotune has no {precision}; it chooses one")
    _set_devices(draft, trainer, notes)
    _set_callbacks(draft, trainer, notes)
    seed = config.take("seed_everything")
    if isinstance(seed, int) and not isinstance(seed, bool):
        draft.set("train.seed", seed)
    return notes


def _optimizer(config: ConfigSection, task: ConfigSection, notes: list[str]) -> tuple[float, float]:
    """Learning rate and weight decay; those of `optimizer` before those of the task."""
    name, args = config.object("optimizer")
    hparams = task.take("optimizer_hparams", {})
    name = name or str(task.take("optimizer", "Adam"))
    task.take("optimizer")
    if name != "AdamW":
        notes.append(f"optimizer: {name} became AdamW, the only one of geotune")
    own_lr = task.take("lr", 1e-3)
    default = 0.01 if name == "AdamW" else 0.0
    decay = args.take("weight_decay", hparams.get("weight_decay", default))
    return float(args.take("lr", own_lr)), float(decay)


def _set_devices(draft: Draft, trainer: ConfigSection, notes: list[str]) -> None:
    accelerator = str(trainer.take("accelerator", "auto"))
    known = {"auto": "auto", "cpu": "cpu", "gpu": "gpu", "cuda": "gpu", "mps": "mps"}
    draft.set("train.accelerator", known.get(accelerator, "auto"))
    devices = trainer.take("devices", "auto")
    if isinstance(devices, int) and devices > 0:
        draft.set("train.devices", devices)
    elif devices not in ("auto", -1):
        notes.append(f"trainer.devices: {devices} became auto")
    if (nodes := trainer.take("num_nodes", 1)) != 1:
        draft.set("train.nodes", nodes)
    strategy = str(trainer.take("strategy", "auto"))
    if strategy.startswith("ddp"):
        draft.set("train.strategy", "ddp")
    elif strategy != "auto":
        notes.append(f"trainer.strategy: {strategy} became auto")


def _set_callbacks(draft: Draft, trainer: ConfigSection, notes: list[str]) -> None:
    """Early stopping and loggers; geotune keeps checkpoints and progress by itself."""
    for name, args in objects(trainer.take("callbacks", [])):
        if name == "EarlyStopping":
            draft.set("train.patience", args.get("patience", 3))
            if args.get("monitor", "val/loss") == "val/loss":
                draft.set("train.monitor", "loss")
        elif name not in ("ModelCheckpoint", "StateDictAwareModelCheckpoint", "RichProgressBar"):
            notes.append(f"trainer.callbacks: geotune has no {name}")
    logger = trainer.take("logger")
    entries = logger if isinstance(logger, Sequence) and not isinstance(logger, str) else [logger]
    loggers = [LOGGERS[name] for name, _ in objects(entries) if name in LOGGERS]
    if loggers:
        draft.set("train.loggers", loggers)
    elif logger is False:
        draft.set("train.loggers", [])
    every: Any = trainer.take("check_val_every_n_epoch", 1)
    if every != 1:
        draft.set("train.validate_every", every)
