"""`geotune demo`: the main job end to end on scenes that geotune makes itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from geotune.adapter_config import TENSORS
from geotune.api.fitting import fit_recipe
from geotune.api.prediction import predict_run
from geotune.api.testing import test_run
from geotune.config import parse_recipe
from geotune.data.synthetic.writer import CLASSES
from geotune.training.progress_bar import TrainingProgress
from geotune.utils.atomic import write_atomically
from geotune.utils.progress import scene_progress

RECIPE = """\
# What `geotune demo` trains: side-tuning beside a small timm backbone, on synthetic scenes.
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
train:    {{run: {est}, epochs: 4, batch_size: 8, lr: 3.0e-3, precision: bf16-mixed}}
"""


def run_demo(folder: Path, *, say: Callable[[str], None], console: Console) -> dict[str, Any]:
    """Make scenes, train, test and map in `folder`. Returns the test metrics and where things lie.

    Raises `GeotuneError` where the folder holds something else.
    """
    import yaml

    quoted = {name: json.dumps(str(folder / name)) for name in ("scenes", "est")}
    text = RECIPE.format(**quoted, classes=", ".join(CLASSES))
    recipe = parse_recipe(yaml.safe_load(text), "the demo's recipe")
    say(f"making synthetic scenes in {folder / 'scenes'}")
    assert recipe.train.run is not None
    result = fit_recipe(
        recipe, recipe.train.run, say=say, callbacks=lambda: [TrainingProgress(console)]
    )
    write_atomically(folder / "demo.yaml", text.encode())
    tested = test_run(result.run)
    scene = folder / "scenes" / "scene_005.tif"
    with scene_progress(console) as progress:
        mapped = predict_run(result.run, [str(scene)], folder / "maps", progress=progress)[0]
    map_path, polygons_path = mapped.files
    return {
        "metrics": tested["metrics"],
        "recipe": str(folder / "demo.yaml"),
        "adapter": str(result.run / TENSORS),
        "map": str(map_path),
        "polygons": str(polygons_path),
        "report": str(result.run / "report.html"),
    }
