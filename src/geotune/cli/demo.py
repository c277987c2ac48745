"""`geotune demo`."""

from __future__ import annotations

from pathlib import Path

from geotune.cli.console import Json, escape, message, out, print_json, print_table, show_progress
from geotune.cli.metrics_table import metrics_table

NEXT = ("train longer", "train with another method", "map another scene")


def demo(
    folder: Path = Path("geotune-demo"), *, backbone: str | None = None, as_json: Json = False
) -> None:
    """Run the full workflow on synthetic scenes: train, test, predict, report.

    Parameters
    ----------
    folder
        Output folder.
    backbone
        Name of a pretrained backbone, which is downloaded, or a file with weights of timm/resnet18;
        by default geotune/convnext_mini, whose pretrained weights are part of geotune.
    """
    from geotune.utils.progress import DATA_MODULES, loading_libraries

    with show_progress() as on_progress:
        with loading_libraries(on_progress, DATA_MODULES):
            from geotune.api.demo_workflow import run_demo
        result = run_demo(folder, backbone=backbone, on_message=message, on_progress=on_progress)
    if as_json:
        print_json(result)
        return
    print_table(metrics_table("test", result["metrics"]))
    for label in ("backbone", "recipe", "adapter"):
        out().print(f"{label}: {escape(str(result[label]))}")
    out().print("\nOpen in a browser:")
    out().print(f"report: {escape(str(result['report']))}")
    out().print("Open in QGIS:")
    for label in ("project", "map", "polygons"):
        out().print(f"{label}: {escape(str(result[label]))}")
    out().print("\nTry next:")
    for why, command in zip(NEXT, result["next"], strict=True):
        out().print(f"{escape(command)}  [dim]# {why}[/dim]")
