"""Tuning methods where objects are found: what they find, peak memory and time, over seeds.

    python benchmarks/detection.py ships
    python benchmarks/detection.py trees --seeds 0 --methods est frozen
    python benchmarks/detection.py ships --cases "oriented galileo" --set train.epochs=1

`ships`: AP50 in a harbour never seen, as oriented and as horizontal boxes, on Galileo-nano and on
timm's ResNet-18. No weights of timm's lie beside the data, so the ResNet's are random: how a method
does on it says what it costs, and what the detector and the stem can do alone.

`trees`: in places never seen, as points (F1 within 3 m, error of the count) and as a map of density
(error of the count). Counts are of images of 256 pixels.

How it is measured is in `tuning.py`. Tables go to benchmarks/results/detection_<what>.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tuning import RESULTS, Case, add_options, compare

RECIPES = Path("recipes")
RESNET = "backbone={name: timm/resnet18, pretrained: false, bands: [B02, B03, B04, B08, B11]}"
HORIZONTAL = (
    "task.boxes=horizontal",
    "decoder.kind=fcos",
    *(f"decoder.{key}" for key in ("channels=64", "depth=2", "finest=2", "levels=4")),
)
BOXES = ("ap50", "ap75", "ap")
COUNTS = ("count_mae", "count_rmse", "count_bias")
CASES = {
    "ships": [
        Case(f"{boxes} {name}", RECIPES / "ships_boxes.yaml", BOXES, (*keys, *backbone))
        for boxes, keys in (("oriented", ()), ("horizontal", HORIZONTAL))
        for name, backbone in (("galileo", ()), ("resnet18 (random)", (RESNET,)))
    ],
    "trees": [
        Case("points", RECIPES / "trees.yaml", ("f1", "precision", "recall", *COUNTS)),
        Case("density", RECIPES / "tree_density.yaml", COUNTS),
    ],
}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=CASES)
    add_options(parser)
    parser.add_argument("--cases", nargs="+", help="by default all")
    options = parser.parse_args()
    cases = CASES[options.what]
    names = [case.name for case in cases]
    if unknown := set(options.cases or ()) - set(names):
        parser.error(f"--cases: found {', '.join(unknown)}, expected some of {', '.join(names)}")
    compare(
        [case for case in cases if case.name in (options.cases or names)],
        "tuning methods on the same data, detector and steps",
        RESULTS / f"detection_{options.what}.json",
        {
            "recipes": {case.recipe.stem: case.recipe.read_text("utf-8") for case in cases},
            "cases": {case.name: list(case.keys) for case in cases},
            "set": options.overrides,
        },
        methods=options.methods,
        seeds=options.seeds,
        overrides=options.overrides,
        runs=options.runs,
    )


if __name__ == "__main__":
    main()
