"""A configuration and a checkpoint of TerraTorch become a recipe and weights."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml

from geotune.api.from_terratorch.convert import ConvertResult, convert
from geotune.backbones.create import build_backbone
from geotune.config import Recipe, load_recipe
from geotune.errors import GeotuneError
from geotune.factory.build_data import build_data
from helpers.errors import raises

Write = Callable[..., Path]


def config(data: Path) -> dict[str, Any]:
    """As in TerraTorch's examples; the scenes are those of `tiny_scenes`."""
    return {
        "seed_everything": 7,
        "trainer": {
            "accelerator": "cpu",
            "precision": "16-mixed",
            "max_epochs": 3,
            "check_val_every_n_epoch": 2,
            "accumulate_grad_batches": 2,
            "gradient_clip_val": 0.5,
            "log_every_n_steps": 5,
            "logger": {"class_path": "lightning.pytorch.loggers.MLFlowLogger"},
            "callbacks": [
                {"class_path": "RichProgressBar"},
                {
                    "class_path": "EarlyStopping",
                    "init_args": {"monitor": "val/loss", "patience": 4},
                },
                {"class_path": "LearningRateMonitor"},
            ],
        },
        "data": {
            "class_path": "terratorch.datamodules.GenericNonGeoSegmentationDataModule",
            "init_args": {
                "batch_size": 2,
                "num_workers": 0,
                "num_classes": 2,
                "dataset_bands": ["R", "G", "N"],
                "output_bands": ["N", "R"],
                "constant_scale": 0.1,
                "means": [40.0, 50.0],
                "stds": [4, 5],
                "no_data_replace": 1,
                "no_label_replace": -1,
                **{f"{name}_data_root": str(data / "scenes") for name in ("train", "val", "test")},
                **{
                    f"{name}_label_data_root": str(data / "labels")
                    for name in ("train", "val", "test")
                },
                **{f"{name}_split": str(data / f"{name}.txt") for name in ("train", "val", "test")},
                "img_grep": "*.tif",
                "label_grep": "*.tif",
                "train_transform": [
                    {"class_path": "albumentations.HorizontalFlip"},
                    {"class_path": "albumentations.RandomBrightnessContrast"},
                    {"class_path": "ToTensorV2"},
                ],
            },
        },
        "model": {
            "class_path": "terratorch.tasks.SemanticSegmentationTask",
            "init_args": {
                "model_factory": "EncoderDecoderFactory",
                "model_args": {
                    "backbone": "timm_test_resnet",
                    "backbone_pretrained": False,
                    "backbone_bands": ["NIR_NARROW", "RED"],
                    "backbone_drop_path": 0.1,
                    "necks": [{"name": "SelectIndices", "indices": [0, 1]}],
                    "decoder": "UNetDecoder",
                    "decoder_channels": [64, 32],
                    "num_classes": 2,
                },
                "loss": "dice",
                "ignore_index": -1,
                "freeze_backbone": True,
                "class_names": ["land", "water"],
            },
        },
        "optimizer": {
            "class_path": "torch.optim.AdamW",
            "init_args": {"lr": 1e-4, "weight_decay": 0.1},
        },
        "lr_scheduler": {
            "class_path": "ReduceLROnPlateau",
            "init_args": {"monitor": "val/loss", "factor": 0.3},
        },
    }


@pytest.fixture
def write(tiny_scenes: Path, tmp_path: Path) -> Write:
    """Writes `config` to `c.yaml` with changes by key; None removes a key."""
    for name in ("scenes", "labels"):
        (tmp_path / name).symlink_to(tiny_scenes / name)
    for name, members in (("train", "a\nb\n"), ("val", "c.tif\n"), ("test", "d")):
        (tmp_path / f"{name}.txt").write_text(members, encoding="utf-8")

    def writes(changes: dict[str, Any] | None = None) -> Path:
        values = config(tmp_path)
        for key, value in (changes or {}).items():
            section = values
            *parents, last = key.split(".")
            for part in parents:
                section = section.setdefault(part, {})
            section[last] = value
        path = tmp_path / "c.yaml"
        path.write_text(yaml.safe_dump(values), encoding="utf-8")
        return path

    return writes


def converted(path: Path, **options: Any) -> tuple[Recipe, ConvertResult]:
    result = convert(path, path.with_name("r.yaml"), overwrite=True, **options)
    recipe, notes = load_recipe(result.recipe)
    assert not notes
    return recipe, result


def test_every_part_becomes_its_key(write: Write, tmp_path: Path) -> None:
    recipe, _ = converted(write())
    assert recipe.backbone.name == "timm/test_resnet" and not recipe.backbone.pretrained
    assert recipe.backbone.bands == ("NIR_NARROW", "RED")
    assert (recipe.method.kind, recipe.method.stem_width) == ("frozen", 0)
    decoder: Any = recipe.decoder
    assert (decoder.kind, decoder.channels) == ("unet", [64, 32])
    task: Any = recipe.task
    assert (task.kind, task.classes, task.loss) == ("segment", ["land", "water"], "dice")
    data: Any = recipe.data
    assert data.bands == ["RED", "G", "NIR_NARROW"]  # the model's names of output_bands
    assert data.normalize == {"NIR_NARROW": (400.0, 40.0), "RED": (500.0, 50.0)}
    assert (data.nodata_fill, data.ignore_values, data.window) == (10.0, [-1], 64)
    assert data.augment.flips and data.brightness == 0 and not data.replacement
    train = recipe.train
    assert (train.epochs, train.batch_size, train.accumulate_steps) == (3, 4, 2)
    assert (train.lr, train.weight_decay, train.grad_clip_norm) == (1e-4, 0.1, 0.5)
    assert (train.schedule, train.patience, train.monitor) == ("plateau", 4, "loss")
    assert (train.precision, train.validate_every, train.seed) == ("16-mixed", 2, 7)
    assert train.loggers == ["mlflow"] and train.accelerator == "cpu"


def test_the_table_has_the_files_that_terratorch_reads(write: Write, tmp_path: Path) -> None:
    recipe, result = converted(write())
    with result.table.open(newline="") as file:
        rows = [*csv.reader(file)]
    assert rows == [
        ["image", "label", "split"],
        ["scenes/a.tif", "labels/a.tif", "train"],
        ["scenes/b.tif", "labels/b.tif", "train"],
        ["scenes/c.tif", "labels/c.tif", "val"],
        ["scenes/d.tif", "labels/d.tif", "test"],
    ]
    data = build_data(recipe)
    assert data.splits == {"train": ["a", "b"], "val": ["c"], "test": ["d"]}


def test_what_has_no_counterpart_is_listed_in_the_file_too(write: Write) -> None:
    _, result = converted(write())
    assert result.not_taken == {
        "trainer.log_every_n_steps": 5,
        "lr_scheduler.init_args.monitor": "val/loss",
        "lr_scheduler.init_args.factor": 0.3,
        "model.init_args.model_args.backbone_drop_path": 0.1,
    }
    assert any("LearningRateMonitor" in text for text in result.differences)
    assert any("RandomBrightnessContrast" in text for text in result.differences)
    text = result.recipe.read_text()
    for key in result.not_taken:
        assert f"# - {key}: " in text
    assert "SelectIndices" in text


@pytest.mark.parametrize(
    ("changes", "method"),
    [
        ({"freeze_backbone": False}, {"kind": "full"}),
        (
            {
                "freeze_backbone": False,
                "model_args.peft_config": {
                    "method": "LORA",
                    "replace_qkv": "qkv",
                    "peft_config_kwargs": {
                        "r": 4,
                        "lora_alpha": 32,
                        "lora_dropout": 0.1,
                        "target_modules": ["q_linear", "v_linear", "mlp.fc1"],
                    },
                },
            },
            {"kind": "lora", "rank": 4, "alpha": 32, "dropout": 0.1, "targets": ["qkv", "mlp.fc1"]},
        ),
        (
            {
                "model_args.backbone": "geotune_est__timm_test_resnet",
                "model_args.backbone_reduction": 4,
            },
            {"kind": "est", "reduction": 4},
        ),
    ],
    ids=["full", "lora", "geotune"],
)
def test_methods(write: Write, changes: dict[str, Any], method: dict[str, Any]) -> None:
    recipe, _ = converted(write({f"model.init_args.{k}": v for k, v in changes.items()}))
    values = recipe.method.model_dump()
    assert {key: values[key] for key in method} == method
    full = method["kind"] == "full"
    assert recipe.train.backbone_lr == (1e-4 if full else None)


def test_labels_that_count_from_one(write: Write) -> None:
    recipe, _ = converted(write({"data.init_args.reduce_zero_label": True}))
    data: Any = recipe.data
    assert data.class_values == {"land": 1, "water": 2} and data.ignore_values == [0]


def test_images_of_two_splits_stay_in_the_first(write: Write, tmp_path: Path) -> None:
    (tmp_path / "test.txt").write_text("c\nd\n", encoding="utf-8")
    _, result = converted(write())
    assert any("1 image of test" in text and "val" in text for text in result.differences)
    assert result.table.read_text().count("scenes/c.tif") == 1


def test_pixelwise_regression(write: Write) -> None:
    changes = {
        "model.class_path": "PixelwiseRegressionTask",
        "model.init_args.loss": "mae",
        "model.init_args.class_names": None,
        "data.class_path": "GenericNonGeoPixelwiseRegressionDataModule",
        "data.init_args.num_classes": None,
    }
    recipe, _ = converted(write(changes))
    task: Any = recipe.task
    assert (task.kind, task.level, task.loss) == ("regress", "pixel", "l1")


def test_classification_reads_the_folders(write: Write, tmp_path: Path, tiny_scenes: Path) -> None:
    for split, names in (("train", "ab"), ("val", "c"), ("test", "d")):
        for name, folder in zip(names, ("water", "land"), strict=False):
            target = tmp_path / "images" / split / folder / f"{name}.tif"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((tiny_scenes / "scenes" / f"{name}.tif").read_bytes())
    splits = ("train", "val", "test")
    changes = {
        "model.class_path": "ClassificationTask",
        "model.init_args.loss": "ce",
        "model.init_args.class_names": ["Land", "Sea"],
        "data.class_path": "GenericNonGeoClassificationDataModule",
        **{f"data.init_args.{s}_data_root": str(tmp_path / "images" / s) for s in splits},
        **{f"data.init_args.{s}_split": None for s in splits},
    }
    recipe, result = converted(write(changes))
    assert recipe.task.kind == "classify" and recipe.decoder.kind == "global_pool"
    assert "images/train/water/a.tif,Sea,train" in result.table.read_text()
    assert [len(members) for members in build_data(recipe).splits.values()] == [2, 1, 1]


def lightning(path: Path, state: dict[str, torch.Tensor], **more: Any) -> Path:
    torch.save({"state_dict": state, "hyper_parameters": {"lr": 1e-4}, **more}, path)
    return path


def test_a_checkpoint_gives_the_backbones_weights(write: Write, tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = timm.create_model("test_resnet", in_chans=2, features_only=True)
    state = {f"model.encoder.{name}": x for name, x in model.state_dict().items()}
    state |= {"model.decoder.conv.weight": torch.ones(1), "criterion.weight": torch.ones(2)}
    recipe, result = converted(write(), checkpoint=lightning(tmp_path / "x.ckpt", state))
    assert result.weights == recipe.backbone.weights == tmp_path / "r_backbone.safetensors"
    assert any("decoder" in text and "x.ckpt" in text for text in result.differences)
    backbone = build_backbone(recipe.backbone)
    loaded = backbone.model.state_dict()
    assert torch.equal(loaded["conv1.0.weight"], state["model.encoder.conv1.0.weight"])


def test_a_checkpoint_with_a_method_gives_the_backbone_too(write: Write, tmp_path: Path) -> None:
    import geotune

    own = geotune.backbone("timm/test_resnet", bands=["NIR_NARROW", "RED"], pretrained=False)
    prefix = "model.encoder.encoder.backbone.model."
    state = {f"{prefix}{name}": x + 1 for name, x in own.model.state_dict().items()}
    path = write({"model.init_args.model_args.backbone": "geotune_est__timm_test_resnet"})
    recipe, _ = converted(path, checkpoint=lightning(tmp_path / "x.ckpt", state))
    backbone = build_backbone(recipe.backbone)
    for name, tensor in backbone.model.state_dict().items():
        assert torch.equal(tensor, state[f"{prefix}{name}"]), name
    assert backbone.normalization is not None and backbone.normalization.offset == (400.0, 500.0)


class Harmful:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_checkpoint_never_runs_code(write: Write, tmp_path: Path) -> None:
    path = lightning(tmp_path / "x.ckpt", {}, extra=Harmful(tmp_path / "harm"))
    with raises("file-unreadable", file=path, mentions=["_state_dict.ckpt"]):
        converted(write(), checkpoint=path)
    assert not (tmp_path / "harm").exists() and not (tmp_path / "r.yaml").exists()


@pytest.mark.parametrize(
    ("state", "mentions"),
    [
        ({"model.decoder.weight": torch.ones(1)}, ["model.encoder"]),
        ({"model.encoder.base_model.model.x.lora_A": torch.ones(1)}, ["peft_config"]),
        ({"model.encoder.x": torch.ones(1)}, ["timm/test_resnet"]),
    ],
)
def test_checkpoints_of_other_models_are_refused(
    write: Write, tmp_path: Path, state: dict[str, torch.Tensor], mentions: list[str]
) -> None:
    path = lightning(tmp_path / "x.ckpt", state)
    with raises("weights-mismatch", file=path, mentions=mentions):
        converted(write(), checkpoint=path)
    left = {each.name for each in tmp_path.iterdir()}
    assert not left & {"r.yaml", "r_scenes.csv", "r_backbone.safetensors"}


ARGS = "model.init_args.model_args"


@pytest.mark.parametrize(
    ("changes", "code", "key", "mentions"),
    [
        (
            {"model.init_args.model_factory": "PrithviModelFactory"},
            "terratorch-config",
            "model.init_args.model_factory",
            ["PrithviModelFactory", "EncoderDecoderFactory"],
        ),
        (
            {f"{ARGS}.backbone": "prithvi_eo_v2_30"},
            "backbone-unknown",
            f"{ARGS}.backbone",
            ["prithvi_eo_v2_30", "prithvi_eo_v2_300"],
        ),
        (
            {"model.class_path": "terratorch.tasks.ObjectDetectionTask"},
            "terratorch-config",
            "model.class_path",
            ["ObjectDetectionTask", "SemanticSegmentationTask"],
        ),
        (
            {"data.class_path": "terratorch.datamodules.Sen1Floods11NonGeoDataModule"},
            "terratorch-config",
            "data.class_path",
            ["Sen1Floods11", "GenericNonGeoSegmentationDataModule"],
        ),
        (
            {"data.init_args.train_data_root": "nowhere"},
            "file-missing",
            "data.init_args.train_data_root",
            ["nowhere"],
        ),
        (
            {"data.init_args.val_split": "nowhere.txt"},
            "file-missing",
            "data.init_args.val_split",
            ["nowhere.txt"],
        ),
        (
            {"data.init_args.label_grep": "a.tif"},
            "labels-missing",
            "data.init_args.train_data_root",
            ["2 images", "1 label"],
        ),
        ({"data.init_args": 3}, "terratorch-config", "data.init_args", ["3"]),
    ],
)
def test_errors_name_file_and_key(
    write: Write, changes: dict[str, Any], code: str, key: str, mentions: list[str]
) -> None:
    path = write(changes)
    with raises(code, key=key, mentions=[*mentions, path.name]):
        converted(path)
    assert not path.with_name("r.yaml").exists()
    assert not path.with_name("r_scenes.csv").exists()


def test_other_files_are_no_configuration(tmp_path: Path, write: Write) -> None:
    with raises("recipe-unreadable", file=tmp_path / "no.yaml"):
        convert(tmp_path / "no.yaml")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("backbone: {name: timm/resnet18}\ndata: {}\n", encoding="utf-8")
    with raises("terratorch-config", file=recipe, mentions=["backbone, data", "terratorch fit"]):
        convert(recipe)
    path = write()
    converted(path)
    with raises("output-exists", mentions=["--overwrite"]):
        convert(path, path.with_name("r.yaml"))
    with pytest.raises(GeotuneError, match="--checkpoint"):
        converted(path, checkpoint=tmp_path / "no.ckpt")


def test_the_command_prints_what_is_not_taken_over(
    geotune: Callable[..., tuple[int, str, str]], write: Write, tmp_path: Path
) -> None:
    path = write()
    code, out, err = geotune("init", "--from-terratorch", path, "--out", tmp_path / "r.yaml")
    assert code == 0, err
    assert "trainer.log_every_n_steps: 5" in out and "LearningRateMonitor" in out
    assert f"geotune fit {tmp_path / 'r.yaml'}" in out.replace("\n", "")
    code, _, err = geotune("init", tmp_path, "--from-terratorch", path)
    assert code == 1 and "folder" in err and "option-not-applicable" in err
    code, _, err = geotune("init", tmp_path, "--checkpoint", path)
    assert code == 1 and "--checkpoint" in err
    code, _, err = geotune("init")
    assert code == 1 and "--from-terratorch" in err
