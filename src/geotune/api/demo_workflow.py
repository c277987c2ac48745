"""`geotune demo`: the full workflow on synthetic scenes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from geotune.adapter_config import TENSORS
from geotune.api.fitting import fit
from geotune.api.prediction import predict
from geotune.api.recipes import OnMessage
from geotune.api.testing import test
from geotune.config import parse_recipe
from geotune.data.synthetic.synthetic_scenes import CLASSES
from geotune.utils.atomic import write_atomically
from geotune.utils.progress import OnProgress

DEFAULT_BACKBONE = "geotune/convnext_mini"
FILE_BACKBONE = "timm/resnet18"
RECIPE = """\
# The recipe of `geotune demo`: EST beside a small frozen backbone, on synthetic scenes.
backbone: {{{backbone}, bands: [B02, B03, B04, B08, B11, B12]}}
method:   {{kind: est, reduction: 8}}
decoder:  {{kind: unet, channels: [64, 48, 32, 16]}}
task:     {{kind: segment, classes: [{classes}]}}
data:
  kind: synthetic
  folder: {scenes}
  count: 6
  size: 384
  window: 128
  samples: 64
  split: {{kind: group, by: scene, val: [scene_004], test: [scene_005]}}
train:    {{run: {run}, epochs: 12, batch_size: 8, lr: 3.0e-3}}
"""


def run_demo(
    folder: Path,
    *,
    backbone: str | None = None,
    on_message: OnMessage,
    on_progress: OnProgress,
) -> dict[str, Any]:
    """Create scenes, train, test and predict in `folder`. Returns test metrics and paths.

    `backbone` is the name of a pretrained one, whose weights are downloaded, or a file with weights
    of `FILE_BACKBONE`; by default `DEFAULT_BACKBONE`, whose weights are part of the package. Raises
    `GeotuneError` if the folder contains other files, and if the weights cannot be loaded.
    """
    import yaml

    run = folder / ("est" if backbone is None else f"est_{Path(backbone).stem}")
    text = RECIPE.format(
        backbone=_section(backbone),
        scenes=json.dumps(str(folder / "scenes")),
        run=json.dumps(str(run)),
        classes=", ".join(CLASSES),
    )
    recipe = parse_recipe(yaml.safe_load(text), "the demo's recipe")
    on_message(f"creating synthetic scenes in {folder / 'scenes'}")
    result = fit(recipe, on_message=on_message, on_progress=on_progress)
    recipe_file = folder / "demo.yaml"
    write_atomically(recipe_file, text.encode())
    tested = test(run, on_progress=on_progress)
    scene = folder / "scenes" / "scene_005.tif"
    mapped = predict(run, [str(scene)], folder / "maps", on_progress=on_progress)[0]
    map_path, polygons_path, project_path = mapped.files
    model = result.summary["backbone"]
    source = "random weights" if model["random_weights"] else f"weights of {model['source']}"
    return {
        "metrics": tested["metrics"],
        "backbone": f"{model['name']} with {source}",
        "recipe": str(recipe_file),
        "adapter": str(run / TENSORS),
        "map": str(map_path),
        "polygons": str(polygons_path),
        "project": str(project_path),
        "report": str(run / "report.html"),
        "next": [
            f"geotune fit {run} train.epochs=24",
            f"geotune fit {recipe_file} method.kind=lora train.run={folder / 'lora'}",
            f"geotune predict {run} {folder / 'scenes' / 'scene_000.tif'} --out {folder / 'maps'}",
        ],
    }


def _section(backbone: str | None) -> str:
    """The keys of the recipe's backbone section."""
    if backbone is None:
        return f"name: {DEFAULT_BACKBONE}"
    if Path(backbone).exists():
        weights = json.dumps(backbone)
        return f"name: {FILE_BACKBONE}, weights: {weights}"
    return f"name: {json.dumps(backbone)}"
