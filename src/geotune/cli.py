"""The commands. Each is a plain function; nothing heavy is imported before it is needed."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

import geotune

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from rich.console import Console
    from rich.table import Table

    from geotune.jobs.check import Checked
    from geotune.jobs.fit import FitResult
    from geotune.jobs.plan import Plan
    from geotune.recipe import Recipe

app = App(
    name="geotune",
    help="Fine-tune geospatial foundation models on the hardware you have.",
    version=lambda: geotune.__version__,
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,  # main says what Ctrl+C leaves
)

Json = Annotated[bool, Parameter(name="--json", negative="", help="print one JSON object instead")]


def main() -> None:
    """Run a command; a fault that the user can mend is one line and exit code 1."""
    argv = sys.argv[1:]
    try:
        app(argv)
    except KeyboardInterrupt:
        _err().print("stopped; the same command goes on from the last finished epoch")
        sys.exit(130)
    except Exception as error:
        if not _is_ours(error):
            raise
        if "--json" in argv:
            print(json.dumps({"error": str(error)}, ensure_ascii=False))
        _err().print(f"[red]error:[/red] {_escape(str(error))}")
        sys.exit(1)


def _is_ours(error: Exception) -> bool:
    """Whether an error is one that geotune words for its user."""
    for module, name in (("geotune.recipe", "RecipeError"), ("geotune.types", "GeotuneError")):
        loaded = sys.modules.get(module)  # not imported: then it cannot be its error
        if loaded is not None and isinstance(error, getattr(loaded, name)):
            return True
    return False


@app.command
def fit(
    recipe: Path,
    *overrides: str,
    fresh: Annotated[bool, Parameter(negative="")] = False,
    as_json: Json = False,
) -> None:
    """Train a recipe; leaves a run folder with adapter, metrics and report.

    The same command goes on with a training that was cut off, and does nothing where it is done.

    Parameters
    ----------
    recipe
        The YAML file.
    overrides
        Changes to it, such as method.kind=lora train.epochs=5.
    fresh
        Start anew, removing what an earlier run left in the folder.
    """
    read = _read(recipe, overrides)
    from geotune.jobs.fit import fit_recipe, run_path

    with _counting("features") as caching:
        result = fit_recipe(
            read,
            run_path(read, recipe),
            fresh=fresh,
            say=_say,
            callbacks=_training_progress,
            caching=caching,
        )
    if result.main_process:
        _show_fit(result, as_json)


@app.command
def check(
    recipe: Path,
    *overrides: str,
    page: Path | None = None,
    as_json: Json = False,
) -> None:
    """Read a recipe's data once and say all that is wrong with it, file by file.

    What it calls an error, geotune fit refuses. The exit code is 1 where there is one.

    Parameters
    ----------
    recipe
        The YAML file.
    overrides
        Changes to it, such as data.split.fold=2.
    page
        Where the HTML goes; by default checks/ with the recipe's name.
    """
    read = _read(recipe, overrides)
    from geotune.jobs.check import check_recipe, check_values

    page = page or Path("checks") / f"{recipe.stem}.html"
    with _counting("scenes") as progress:
        found = check_recipe(read, page, title=recipe.stem, say=_say, progress=progress)
    if as_json:
        _print_json(check_values(found))
    else:
        _show_check(found)
    if found.count("error"):
        sys.exit(1)


@app.command
def plan(
    recipe: Path,
    *overrides: str,
    budget: str | None = None,
    figure: Path | None = None,
    as_json: Json = False,
) -> None:
    """Say what peak memory a recipe's training takes, before training and without a GPU.

    Parameters
    ----------
    recipe
        The YAML file; its data is opened only where the recipe names no bands.
    overrides
        Changes to it, such as method.kind=lora train.batch_size=4.
    budget
        Memory to keep to, such as 8GB: proposes settings that do, best first.
    figure
        An SVG or PNG to draw the parts in.
    """
    read = _read(recipe, overrides)
    from geotune.recipe import RecipeError, parse_size

    try:
        limit = None if budget is None else parse_size(budget)
    except ValueError as error:
        raise RecipeError(f"--budget: {error}") from error
    if figure is not None and figure.suffix not in (".svg", ".png"):
        raise RecipeError(f"--figure {figure}: expected a file that ends in .svg or .png")
    from geotune.jobs.plan import plan_recipe, plan_values

    found = plan_recipe(read, read.train.memory_budget if limit is None else limit, _say)
    for note in found.notes:
        _say(f"note: {note}")
    if figure is not None:
        from geotune.report.memory import draw_memory

        parts = plan_values(found)["by_place"]
        draw_memory(figure, parts, f"{recipe.name}: peak memory of a training step")
    if as_json:
        _print_json(plan_values(found))
    else:
        _show_plan(found)


@app.command
def cache(recipe: Path, *overrides: str, as_json: Json = False) -> None:
    """Compute the features of a backbone that never changes, for trainings to read.

    Only what is not there yet is computed; `geotune fit` with train.cache=disk does the same first.

    Parameters
    ----------
    recipe
        The YAML file.
    overrides
        Changes to it, such as train.cache_precision=int8 train.cache_limit=20GB.
    """
    read = _read(recipe, overrides)
    from geotune.jobs.cache import cache_recipe

    with _counting("features") as progress:
        result = cache_recipe(read, say=_say, progress=progress)
    if as_json:
        _print_json(vars(result))
        return
    _out().print(
        f"{result.folder}: {result.samples} windows, {result.computed} of them computed now; "
        f"{result.bytes / 1e6:,.1f} MB"
    )
    _out().print("train from it with train.cache=disk")


@app.command
def test(
    run: Path,
    *,
    weights: Path | None = None,
    backbone: str | None = None,
    as_json: Json = False,
) -> None:
    """Metrics of a run on its test part, by class and by region.

    Parameters
    ----------
    run
        The run folder.
    weights
        Of the backbone, where they lie elsewhere than when it was trained.
    backbone
        Its name, where it is a Python file of yours: an adapter may not run code by itself.
    """
    from geotune.jobs.test import test_run

    result = test_run(run, weights, backbone=backbone)
    if as_json:
        _print_json({"run": str(run), **result})
        return
    _out().print(_metrics_table("test", result["metrics"]))
    main = next(iter(result["metrics"]))
    for region, metrics in result["regions"].items():
        _out().print(f"{_escape(region)}: {METRICS.get(main, main)} {_score(metrics[main])}")
    if (gap := result["gap"]) is not None:
        seen, unseen = gap["seen"][main], gap["unseen"][main]
        _out().print(
            f"{METRICS.get(main, main)} in regions not seen in training {_score(unseen)}, in seen "
            f"ones ({gap['seen_in']} scenes) {_score(seen)}: {unseen - seen:+.3f}"
            f"{_between(*gap['intervals'][main])}"
        )
    _out().print(f"report: {run / 'report.html'}")


@app.command
def predict(
    run: Path,
    *scenes: str,
    out_dir: Annotated[Path, Parameter(name="--out")],
    window: int | None = None,
    overlap: float = 0.5,
    batch_size: int = 8,
    probabilities: Annotated[bool, Parameter(negative="")] = False,
    polygons: bool = True,
    score: float | None = None,
    bands: list[str] | None = None,
    nodata: float | None = None,
    quality: str | None = None,
    weights: Path | None = None,
    backbone: str | None = None,
    device: Literal["auto", "cpu", "gpu", "mps"] = "auto",
    as_json: Json = False,
) -> None:
    """Predict whole scenes: maps as Cloud-Optimised GeoTIFF, objects, or a table of images.

    What is written is what the run was trained for: a map of classes with polygons as GeoPackage, a
    map of numbers, of a density with the count, objects as GeoPackage and GeoJSON, or a CSV of
    images with what each of them is.

    Parameters
    ----------
    run
        A run folder, or a folder with adapter.json and adapter.safetensors.
    scenes
        GeoTIFFs, or patterns; {band} where each band has a file, {date} where each date has. Of
        several modalities a pattern each: S2L2A=s2/*.tif S1GRD=s1/*.tif.
    out_dir
        Where the maps go.
    window
        Side in pixels of what the model sees at once; by default as in training.
    overlap
        Share of a window that its neighbour covers too, in maps and of objects.
    batch_size
        Windows at once.
    probabilities
        Write a GeoTIFF of probabilities beside a map of classes.
    polygons
        Write polygons beside a map of classes.
    score
        Least score of objects; by default the one at which F1 was highest in validation.
    bands
        Names of the files' bands in file order, where the files do not say.
    nodata
        Value without data, where the files do not say.
    quality
        Masks of clouds or quality, a pattern such as masks/{stem}.tif: what data.quality of the
        run's recipe flags in them is left without data.
    weights
        Of the backbone, where they lie elsewhere than when it was trained.
    backbone
        Its name, where it is a Python file of yours: an adapter may not run code by itself.
    device
        Where to compute.
    """
    from geotune.jobs.predict import predict_run
    from geotune.progress import scene_progress

    if not scenes:
        from geotune.recipe import RecipeError

        raise RecipeError("predict: no scene is given; name at least one GeoTIFF")
    with scene_progress(_err()) as progress:
        results = predict_run(
            run,
            scenes,
            out_dir,
            window=window,
            overlap=overlap,
            batch_size=batch_size,
            probabilities=probabilities,
            polygons=polygons,
            score=score,
            weights=weights,
            backbone=backbone,
            bands=bands,
            nodata=nodata,
            quality=quality,
            device=device,
            progress=progress,
        )
    if as_json:
        _print_json({"scenes": [vars(result) for result in results]})
        return
    for result in results:
        first, *others = result.files
        _out().print(f"{_escape(result.name)}: {first}")
        for path in others:
            _out().print(f"  {path}")
        said = f"{result.said}; {result.windows} windows in {result.seconds:.1f} s"
        _out().print(f"  {_escape(said)}")
        for note in result.notes:
            _say(f"note: {note}")


@app.command
def bench(
    suite: Path,
    *,
    workers: int | None = None,
    ray: str | None = None,
    table_only: Annotated[bool, Parameter(negative="")] = False,
    as_json: Json = False,
) -> None:
    """Compare methods: run a grid of recipes, and say which is better, by how much, at what cost.

    The same command goes on with a suite that was cut off; what is done is not done again. It
    leaves rows.jsonl, table.md, table.csv, table.tex and bench.html.

    Parameters
    ----------
    suite
        The YAML file that says what varies.
    workers
        Runs at a time; by default the suite's.
    ray
        Address of a Ray cluster that does the runs, such as auto.
    table_only
        Run nothing; compare what is done.
    """
    from geotune.bench.run import PAGE
    from geotune.bench.run import bench as bench_suite

    def tell(run: str, what: str, done: int, total: int) -> None:
        _say(f"{done}/{total} {run}: {what}")

    result = bench_suite(
        suite, workers=workers, ray=ray, table_only=table_only, say=_say, tell=tell
    )
    if as_json:
        _print_json({"folder": str(result.folder), "rows": result.rows})
        return
    from geotune.bench.tables import for_terminal, notes

    how = result.suite.compare
    for table in result.tables:
        _out().print(for_terminal(table))
        _out().print(f"[dim]{_escape(notes(table, how.level, how.margin))}[/dim]")
    _out().print(f"page: {result.folder / PAGE}")


@app.command(name="list")
def list_(
    what: Literal["backbones", "methods", "decoders", "tasks", "datasets"],
    name: str | None = None,
    as_json: Json = False,
) -> None:
    """Show what there is.

    Parameters
    ----------
    what
        backbones, methods, decoders, tasks or datasets.
    name
        Only those whose name holds this; for the whole name of a backbone or a named data set, all
        that is known of it.
    """
    from geotune.listing import about_one, listing

    known = None if name is None else about_one(what, name)
    if known is not None:
        facts, pairs = known
        if as_json:
            _print_json(facts)
            return
        for word, text in pairs:
            _out().print(f"[bold]{_escape(word)}[/bold]: {_escape(text)}")
        return
    rows = [row for row in listing(what) if name is None or name.lower() in row["name"].lower()]
    if as_json:
        _print_json({what: rows})
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in rows[0] if rows else ("name",):
        table.add_column(column)
    for row in rows:
        table.add_row(*(_escape(value) for value in row.values()))
    _out().print(table)


@app.command
def demo(folder: Path = Path("geotune-demo"), *, as_json: Json = False) -> None:
    """The whole of it on scenes that geotune makes itself: train, test, map, report.

    Parameters
    ----------
    folder
        Where everything goes.
    """
    from geotune.demo import run_demo

    result = run_demo(folder, say=_say, console=_err())
    if as_json:
        _print_json(result)
        return
    _out().print(_metrics_table("test", result["metrics"]))
    for label in ("recipe", "adapter", "map", "polygons", "report"):
        _out().print(f"{label}: {result[label]}")


def _out() -> Console:
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True)


def _err() -> Console:
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def _counting(what: str) -> AbstractContextManager[Callable[[int, int], None]]:
    from geotune.progress import counting

    return counting(_err(), what)


def _training_progress() -> list[Any]:
    from geotune.training.progress import TrainingProgress  # imports Lightning

    return [TrainingProgress(_err())]


def _read(path: Path, overrides: tuple[str, ...]) -> Recipe:
    from geotune.recipe import read_recipe

    recipe, notes = read_recipe(path, overrides)
    for note in notes:
        _say(f"note: {note}")
    return recipe


def _show_fit(result: FitResult, as_json: bool) -> None:
    if as_json:
        _print_json(
            {
                "run": str(result.run),
                "did": result.did,
                "metrics": result.metrics,
                "adapter": str(result.run / "adapter.safetensors"),
                "report": str(result.run / "report.html"),
                "summary": result.summary,
            }
        )
        return
    if result.did == "nothing":
        _out().print(f"{result.run}: this recipe is trained already; --fresh starts anew")
    else:
        _out().print(_metrics_table("validation", result.metrics))
    summary, memory = result.summary, result.summary["peak_memory"]
    tensors, predicted = memory.get("tracked_bytes"), memory.get("predicted_bytes")
    _out().print(
        f"{summary['epochs']} epochs in {summary['seconds']:.0f} s, best {summary['best_epoch']}; "
        f"{summary['trained_parameters']:,} of {summary['total_parameters']:,} parameters trained; "
        f"peak {memory['peak_bytes'] / 1e9:.2f} GB of {memory['kind']}"
        + (f"; tensors of a step {tensors / 1e9:.2f} GB" if tensors else "")
        + (f", predicted {predicted / 1e9:.2f} GB" if predicted else "")
    )
    _out().print(f"adapter: {result.run / 'adapter.safetensors'}")
    _out().print(f"report: {result.run / 'report.html'}")


SEVERITY_STYLES = {"error": "red", "warning": "yellow", "note": "dim"}


def _show_check(found: Checked) -> None:
    for one in found.findings:
        style = SEVERITY_STYLES[one.severity]
        _out().print(f"[{style}]{one.severity}[/{style}] {_escape(one.text)}")
    if found.class_counts:
        from rich.table import Table

        table = Table(box=None, pad_edge=False)
        for column in ("class", *found.class_counts):
            table.add_column(column, justify="right" if table.columns else "left")
        for name in next(iter(found.class_counts.values())):
            shares = [_share(counts, name) for counts in found.class_counts.values()]
            table.add_row(_escape(name), *shares)
        _out().print(table)
    counts = ", ".join(f"{found.count(word)} {word}s" for word in SEVERITY_STYLES)
    _out().print(f"{found.scenes} scenes read: {counts}")
    _out().print(f"page: {found.page}")


def _share(counts: dict[str, int], name: str) -> str:
    """How much of a class is labelled, and which share of all that is."""
    total = sum(counts.values())
    return f"{counts[name]:,} ({counts[name] / total:.1%})" if total else "0"


def _show_plan(plan: Plan) -> None:
    from rich.table import Table

    from geotune.jobs.budget import as_overrides
    from geotune.memory.predict import CUDA_CONTEXT_BYTES, allocator_bytes
    from geotune.memory.track import PARTS
    from geotune.report.format import DASH
    from geotune.report.format import size as _size

    def size(value: int) -> str:
        return _size(value) if value else DASH

    by_place, prediction = plan.peak.by_place, plan.prediction
    places = list(by_place)
    table = Table(box=None, pad_edge=False)
    for column in ("", *places, "all"):
        table.add_column(column, justify="right" if column else "left")
    for part in PARTS:
        sizes = [by_place[place].get(part, 0) for place in places]
        table.add_row(part.replace("_", " "), *map(size, sizes), size(sum(sizes)))
    totals = [sum(by_place[place].values()) for place in places]
    table.add_row("[bold]peak[/bold]", *map(size, totals), f"[bold]{size(plan.peak.total)}[/bold]")
    _out().print(table)
    _out().print(f"windows at once: {plan.micro_batch}")
    _out().print(f"on a CPU: {size(prediction.cpu.total)} beside what the program itself takes")
    _out().print(
        f"on a GPU: {size(prediction.gpu_bytes)}: tensors {size(prediction.gpu.total)}, gaps of "
        f"the allocator {size(allocator_bytes(prediction.gpu.total))} and the CUDA context "
        f"{size(CUDA_CONTEXT_BYTES)} (both assumed)"
    )
    if plan.fitting is None:
        return
    limit, proposals = size(plan.fitting.budget), plan.fitting.proposals
    table = Table(box=None, pad_edge=False)
    for column in ("changes", "needs", "time"):
        table.add_column(column, justify="left" if column == "changes" else "right")
    for found in proposals or [plan.fitting.smallest]:
        changes = " ".join(as_overrides(found.changes)) or "as it is"
        time = found.prediction.flops / prediction.flops
        table.add_row(_escape(changes), size(found.bytes), f"{time:.2f}")
        for note in found.notes:
            table.add_row(f"[dim]  {_escape(note)}[/dim]")
    _out().print()
    if proposals:
        _out().print(f"within {limit}, best first (time: operations of a step, as it is = 1)")
    else:
        what, where, held = plan.fitting.held_up_by
        _out().print(
            f"nothing fits within {limit}; the smallest is held up by {size(held)} of "
            f"{what.replace('_', ' ')} ({where})"
        )
    _out().print(table)


METRICS = {
    "miou": "mean IoU",
    "iou": "IoU",
    "f1": "F1",
    "ap": "average precision",
    "rmse": "RMSE",
    "mae": "mean absolute error",
    "r2": "R²",
    "relative": "relative error",
}
"""Metrics as people call them; the others go by their own name."""


def _metrics_table(part: str, metrics: dict[str, Any]) -> Table:
    """The main metric, which is the first, as the title; below it classes, or the other figures."""
    from rich.table import Table

    main, *others = (name for name in metrics if "/" not in name)
    title = f"{part}: {METRICS.get(main, main)} {_score(metrics[main])}"
    table = Table(title=_escape(title), title_justify="left", box=None)
    figures = list(dict.fromkeys(name.partition("/")[0] for name in metrics if "/" in name))
    for column in ("class" if figures else "figure", *(METRICS.get(f, f) for f in figures)):
        table.add_column(column, justify="right" if table.columns else "left")
    for name in dict.fromkeys(name.partition("/")[2] for name in metrics if "/" in name):
        table.add_row(_escape(name), *(_score(metrics[f"{figure}/{name}"]) for figure in figures))
    if not figures:
        table.add_column("", justify="right")
        for name in others:
            table.add_row(METRICS.get(name, name), _score(metrics[name]))
    return table


def _score(value: float | None) -> str:
    if value is None or value != value:
        return "–"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.1f}"


def _between(low: float, high: float) -> str:
    """Where a difference lies, in words; nothing where that is not known."""
    if math.isnan(low + high):
        return ""
    return f" ({low:+.3f} to {high:+.3f} in 95 of 100 draws of the windows)"


def _escape(text: str) -> str:
    return text.replace("[", r"\[")


def _say(text: str) -> None:
    _err().print(f"[dim]{_escape(text)}[/dim]")


def _print_json(values: Any) -> None:
    print(json.dumps(_plain(values), ensure_ascii=False, default=str))


def _plain(values: Any) -> Any:
    """The values with numbers that JSON lacks as null."""
    if isinstance(values, float):
        return values if values - values == 0 else None
    if isinstance(values, dict):
        return {key: _plain(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [_plain(value) for value in values]
    return values
