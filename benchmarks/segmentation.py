"""Tuning methods on a recipe's data: IoU, peak memory, time and trained parameters, over seeds.

    python benchmarks/segmentation.py recipes/ships.yaml
    python benchmarks/segmentation.py recipes/clouds.yaml --seeds 0 1 2 --methods full est
    python benchmarks/segmentation.py recipes/ships.yaml --seeds 0 --name est_options \
        --methods est est+every=2 est+fuse=sum est+train.lr=1e-3

A method may have options, each after a plus; without a section's name they are the method's. How
it is measured is in `tuning.py`. The table goes to benchmarks/results/segmentation_<recipe>.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tuning import RESULTS, Case, add_options, compare


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("recipe", type=Path)
    add_options(parser)
    parser.add_argument("--name", help="of the result; by default the recipe's")
    options = parser.parse_args()
    compare(
        [Case("", options.recipe, ("miou", "iou/"))],
        "tuning methods on the same data, decoder and steps",
        RESULTS / f"segmentation_{options.name or options.recipe.stem}.json",
        {"recipe": options.recipe.read_text(encoding="utf-8"), "set": options.overrides},
        methods=options.methods,
        seeds=options.seeds,
        overrides=options.overrides,
        runs=options.runs,
    )


if __name__ == "__main__":
    main()
