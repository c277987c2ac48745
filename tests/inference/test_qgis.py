"""QGIS styles and projects: valid XML, relative paths, the layers of each kind of prediction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as Xml

import numpy as np
import pytest
import torch
from torch import Tensor

from geotune.boxes.structures import Detections
from geotune.inference.detection import detect_scene
from geotune.inference.regression import regress_scene
from geotune.inference.segmentation import segment_scene
from geotune.inference.sliding_window import WindowOptions
from geotune.utils.colors import css, palette
from helpers.inference_scenes import rule_model, write_scene

CLASSES = ["background", "water & ice", "ship <5 m"]
RGBN = ("blue", "green", "red", "nir")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    values = np.random.default_rng(0).uniform(0, 3, (4, 40, 50)).astype(np.float32)
    (tmp_path / "images").mkdir()
    write_scene(tmp_path / "images" / "port.tif", values, bands=RGBN)
    return tmp_path / "images" / "port.tif"


def predict(kind: str, image: Path, out: Path) -> None:
    from geotune.data.raster.open_raster import open_raster

    source, options = open_raster(image), WindowOptions(bands=["red"], window=32)
    if kind == "classes":
        segment_scene(
            lambda images: rule_model(images).softmax(dim=1), source, out, options,
            classes=CLASSES, name="port", probabilities=True,
        )  # fmt: skip
    elif kind == "values":
        regress_scene(
            lambda images: images[:, :1], source, out, options, quantity="height", unit="m",
            name="port",
        )  # fmt: skip
    else:

        def detector(images: Tensor) -> Sequence[Detections]:
            box = torch.tensor([[4.0, 6, 10, 12]])
            return [Detections(box, torch.ones(1), torch.tensor([2])) for _ in images]

        detect_scene(
            detector, source, out, options, classes=CLASSES, scores=dict.fromkeys(CLASSES, 0.5),
            nms_threshold=0.5, points=kind == "points", name="port",
        )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "layers"),
    [
        ("classes", ["polygons", "classes", "probability of ship <5 m", "port"]),
        ("values", ["height (m)", "port"]),
        ("boxes", ["objects", "port"]),
        ("points", ["objects", "port"]),
    ],
)
def test_project_shows_the_image_below_the_predictions(
    kind: str, layers: list[str], image: Path, tmp_path: Path
) -> None:
    out = tmp_path / "maps" / "new"
    predict(kind, image, out)
    project = Xml.parse(out / "port.qgs").getroot()
    assert project.findtext("properties/Paths/Absolute") == "false"
    tree = project.findall("layer-tree-group/layer-tree-layer")
    assert [layer.get("name") for layer in tree] == layers
    entries = {entry.findtext("id"): entry for entry in project.iter("maplayer")}
    assert [layer.get("id") for layer in tree] == list(entries)
    for layer, entry in zip(tree, entries.values(), strict=True):
        source = entry.findtext("datasource") or ""
        path, _, name = source.partition("|layername=")
        assert layer.get("source") == source and not Path(path).is_absolute()
        assert (out / path).resolve().is_file()
        assert entry.findtext("srs/spatialrefsys/authid") == "EPSG:32633"
        assert (entry.get("type") == "vector") == bool(name)
        styled = out / f"{Path(path).stem}.qml"
        if layer.get("name") != "port":
            own, shared = (
                Xml.parse(styled).getroot(),
                entry.find("pipe") or entry.find("renderer-v2"),
            )
            assert shared is not None
            assert Xml.canonicalize(Xml.tostring(own[0])).split() == (
                Xml.canonicalize(Xml.tostring(shared)).split()
            )
    bands = entries[tree[-1].get("id")].find("pipe/rasterrenderer")
    assert bands is not None
    assert [bands.get(f"{color}Band") for color in ("red", "green", "blue")] == ["3", "2", "1"]
    extent = {
        corner.tag: float(corner.text or "nan") for corner in project.find("mapcanvas/extent") or ()
    }
    assert extent == {"xmin": 5e5, "ymin": 4_999_600, "xmax": 500_500, "ymax": 5e6}


def test_styles_have_the_colours_of_the_classes(image: Path, tmp_path: Path) -> None:
    predict("classes", image, tmp_path)
    entries = list(Xml.parse(tmp_path / "port_classes.qml").iter("paletteEntry"))
    assert [(e.get("label"), e.get("color")) for e in entries] == [
        (name, css(color)) for name, color in zip(CLASSES, palette(CLASSES), strict=True)
    ]
    assert [e.get("alpha") for e in entries] == ["0", "255", "255"]
    polygons = Xml.parse(tmp_path / "port_polygons.qml").getroot()
    assert [c.get("value") for c in polygons.iter("category")] == CLASSES
    colors = [o.get("value") for o in polygons.iter("Option") if o.get("name") == "outline_color"]
    assert colors == [",".join(map(str, (*color, 255))) for color in palette(CLASSES)]


def test_values_span_the_colours(image: Path, tmp_path: Path) -> None:
    predict("values", image, tmp_path)
    stops = [
        float(item.get("value") or 0)
        for item in Xml.parse(tmp_path / "port_height.qml").iter("item")
    ]
    assert stops == sorted(stops) and 0 < stops[0] < 0.2 and 2.8 < stops[-1] < 3
