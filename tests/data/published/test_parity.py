"""torchgeo and terratorch read the same pixels and labels from the same copies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geotune.data.published.published_scenes import open_published_scenes
from geotune.data.raster.windows import Window
from geotune.data.scenes.scene import Scene
from geotune.datasets.registry import get_dataset_info

pytestmark = pytest.mark.slow
WriteCopy = Callable[[str], Path]


def open_split(name: str, root: Path, split: str) -> list[Scene]:
    info = get_dataset_info(name)
    scenes = open_published_scenes(info, root, classes=info.classes)
    return [scene for scene in scenes if scene.split == split]


def assert_same_pixels(scene: Scene, image: Any) -> None:
    ours, _ = scene.read(Window(0, 0, *scene.shape))
    difference = np.abs(ours - np.asarray(image))
    if scene.raster.path.suffix == ".jpg":  # decoders differ, mostly in the colours of noise
        assert difference.mean() < 3
    else:
        assert difference.max() < 1e-3


@pytest.mark.parametrize("split", ["train", "val"])
def test_loveda(copy_of: WriteCopy, split: str) -> None:
    datasets = pytest.importorskip("torchgeo.datasets")
    root = copy_of("loveda")
    (root / f"{split.capitalize()}.zip").touch()
    theirs = datasets.LoveDA(root, split=split)
    ours = open_split("loveda", root, split)
    assert len(theirs) == len(ours) == 2
    files = {Path(entry["image"]): i for i, entry in enumerate(theirs.files)}
    for scene in ours:
        sample = theirs[files[scene.raster.path]]
        assert_same_pixels(scene, sample["image"])
        mask = np.asarray(sample["mask"]).astype(int)
        own = scene.labels.read(Window(0, 0, *scene.shape)).mask  # type: ignore[attr-defined]
        assert (np.where(mask == 0, 255, mask - 1) == own).all()


def test_potsdam(copy_of: WriteCopy) -> None:
    datasets = pytest.importorskip("torchgeo.datasets")
    root = copy_of("potsdam")
    for path in (root / "5_Labels_all").iterdir():
        path.rename(root / path.name)
    theirs = datasets.Potsdam2D(root, split="test")
    ours = {scene.name: scene for scene in open_split("potsdam", root, "test")}
    assert len(theirs) == len(ours)
    for i, entry in enumerate(theirs.files):
        scene = ours[Path(entry["image"]).stem.removeprefix("top_potsdam_").removesuffix("_RGBIR")]
        assert_same_pixels(scene, theirs[i]["image"])
        own = scene.labels.read(Window(0, 0, *scene.shape)).mask  # type: ignore[attr-defined]
        assert (np.asarray(theirs[i]["mask"]) == own).all()  # both use the order of the classes


def test_fair1m(copy_of: WriteCopy) -> None:
    datasets = pytest.importorskip("torchgeo.datasets")
    root = copy_of("fair1m")
    theirs = datasets.FAIR1M(root, split="train")
    ours = {scene.raster.path: scene for scene in open_split("fair1m", root, "train")}
    assert len(theirs) == len(ours) == 2
    for i, path in enumerate(theirs.files):
        corners = np.asarray(theirs[i]["bbox_xyxy"])
        boxes: Any = ours[Path(path)].labels.boxes  # type: ignore[attr-defined]
        assert (boxes[:, :2] == corners.min(axis=1)).all()
        assert (boxes[:, 2:] == corners.max(axis=1)).all()
        assert (np.asarray(theirs[i]["label"]) == ours[Path(path)].labels.indices).all()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "theirs", "folder"),
    [
        ("eurosat", "EuroSAT", "ds/images/remote_sensing/otherDatasets/sentinel_2/tif"),
        ("uc_merced", "UCMerced", None),
        ("resisc45", "RESISC45", None),
    ],
)
def test_classification_data_sets(
    copy_of: WriteCopy, name: str, theirs: str, folder: str | None
) -> None:
    datasets = pytest.importorskip("torchgeo.datasets")
    root = copy_of(name)
    if folder is not None:
        (root / folder).parent.mkdir(parents=True)
        (root / "EuroSAT_MS").rename(root / folder)
    read = getattr(datasets, theirs)(root, split="val")
    ours = {scene.raster.path: scene for scene in open_split(name, root, "val")}
    assert len(read) == len(ours) == len(get_dataset_info(name).classes)
    for i, (path, label) in enumerate(read.samples):
        scene = ours[Path(path)]
        assert scene.labels.classes[scene.labels.target.index] == read.classes[label]  # type: ignore[attr-defined]
        if name != "uc_merced":  # torchgeo resizes its images
            assert_same_pixels(scene, read[i]["image"])


@pytest.mark.parametrize("name", ["m_cashew_plantation", "m_sa_crop_type"])
def test_geobench(copy_of: WriteCopy, name: str) -> None:
    datasets = pytest.importorskip("terratorch.datasets")
    theirs = {
        "m_cashew_plantation": "MBeninSmallHolderCashewsNonGeo",
        "m_sa_crop_type": "MSACropTypeNonGeo",
    }[name]
    root = copy_of(name)
    bands = ("BLUE", "NIR_NARROW", "SWIR_2")
    read = getattr(datasets, theirs)(str(root), split="train", bands=bands)
    info = get_dataset_info(name)
    scenes = open_published_scenes(
        info, root, classes=info.classes, wanted_bands=["B02", "B8A", "B12"]
    )
    ours = {scene.name: scene for scene in scenes if scene.split == "train"}
    for i, path in enumerate(read.image_files):
        assert_same_pixels(ours[path.stem], read[i]["image"])
        own = ours[path.stem].labels.read(Window(0, 0, 48, 48)).mask  # type: ignore[attr-defined]
        assert (np.asarray(read[i]["mask"]) == own).all()


def test_sen1floods11(copy_of: WriteCopy) -> None:
    datasets = pytest.importorskip("terratorch.datasets")
    root = copy_of("sen1floods11")
    scenes = open_split("sen1floods11", root, "train")
    lists = root / "v1.1/splits/flood_handlabeled"
    lists.mkdir(parents=True)
    (lists / "flood_train_data.txt").write_text("\n".join(scene.name for scene in scenes))
    read = datasets.Sen1Floods11NonGeo(str(root), constant_scale=1.0)
    assert len(read) == len(scenes) == 2
    for i, scene in enumerate(scenes):
        assert_same_pixels(scene, read[i]["image"])
        own = scene.labels.read(Window(0, 0, *scene.shape)).mask  # type: ignore[attr-defined]
        assert (np.where(own == 255, -1, own.astype(int)) == np.asarray(read[i]["mask"])).all()
