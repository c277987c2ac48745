"""`geotune demo`: the full workflow on synthetic scenes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from geotune.adapter_config import TENSORS
from geotune.api.fitting import fit
from geotune.api.prediction import predict
from geotune.api.recipes import OnMessage
from geotune.api.testing import test
from geotune.config import parse_recipe
from geotune.data.synthetic.synthetic_scenes import CLASSES
from geotune.training.progress_bar import TrainingProgress
from geotune.utils.atomic import write_atomically
from geotune.utils.progress import scene_progress

RECIPE = """\
# The recipe of `geotune demo`: EST on a small timm backbone, on synthetic scenes.
backbone: {{name: timm/resnet18, pretrained: false, bands: [B02, B03, B04, B08, B11, B12]}}
method:   {{kind: est, reduction: 8, stem_width: 16}}
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
train:    {{run: {est}, epochs: 4, batch_size: 8, lr: 3.0e-3}}
"""


def run_demo(folder: Path, *, on_message: OnMessage, console: Console) -> dict[str, Any]:
    """Create scenes, train, test and predict in `folder`. Returns test metrics and paths.

    Raises `GeotuneError` if the folder contains other files.
    """
    import yaml

    quoted = {name: json.dumps(str(folder / name)) for name in ("scenes", "est")}
    text = RECIPE.format(**quoted, classes=", ".join(CLASSES))
    recipe = parse_recipe(yaml.safe_load(text), "the demo's recipe")
    on_message(f"creating synthetic scenes in {folder / 'scenes'}")
    result = fit(recipe, on_message=on_message, callbacks=lambda: [TrainingProgress(console)])
    write_atomically(folder / "demo.yaml", text.encode())
    tested = test(result.run)
    scene = folder / "scenes" / "scene_005.tif"
    with scene_progress(console) as progress:
        mapped = predict(result.run, [str(scene)], folder / "maps", on_progress=progress)[0]
    map_path, polygons_path = mapped.files
    return {
        "metrics": tested["metrics"],
        "recipe": str(folder / "demo.yaml"),
        "adapter": str(result.run / TENSORS),
        "map": str(map_path),
        "polygons": str(polygons_path),
        "report": str(result.run / "report.html"),
    }
