"""`geotune map`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from geotune.cli.console import Json, escape, message, out, print_json, show_progress
from geotune.cli.shared_options import Device, MapContent, ModelFiles, SceneFiles
from geotune.utils.text import pluralize


def map_(
    run: Path,
    *more_runs: Path,
    scenes: Annotated[list[str], Parameter(consume_multiple=True)],
    out_dir: Annotated[str, Parameter(name="--out")],
    workers: int = 1,
    ray: str | None = None,
    shard: str | None = None,
    combine: Annotated[bool, Parameter(negative="")] = False,
    tile: int = 2048,
    threads: int = 1,
    content: MapContent = MapContent(),
    formats: Annotated[list[Literal["parquet"]] | None, Parameter(name="--format")] = None,
    zarr: Annotated[bool, Parameter(negative="")] = False,
    files: SceneFiles = SceneFiles(),
    model: ModelFiles = ModelFiles(),
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Predict many scenes tile by tile, with many workers or machines; resumes when run again.

    Writes the files of geotune predict for each scene, one mosaic (VRT and GDAL tile index), a STAC
    catalogue with checksums, and index.html, which shows the tiles that are done. Scenes that
    cannot be read are listed in failed.csv and do not stop the others.

    Parameters
    ----------
    run
        A run folder, a folder with adapter.json and adapter.safetensors, or
        hub:ORG/NAME[@REVISION].
    more_runs
        Further runs over the same scenes. The images are read once, and runs over the same frozen
        backbone share one pass of it; each has its map in a folder of its name.
    scenes
        Patterns of GeoTIFFs, or tables of scenes: CSV, GeoParquet or STAC; several modalities as
        for geotune predict. Quote patterns.
    out_dir
        Output folder, empty or of the same map; or the URL of an object store, such as
        s3://bucket/map.
    workers
        Worker processes on this machine; with --ray the largest number of actors.
    ray
        Address of a Ray cluster, such as auto or ray://head:10001.
    shard
        i/n: compute only every n-th tile, i from 0 to n - 1, such as $SLURM_ARRAY_TASK_ID/64. Run
        --combine after all shards.
    combine
        Compute nothing; write the files of the scenes out of the tiles of all shards.
    tile
        Tile side in pixels, a multiple of 64, best of 512.
    threads
        CPU threads of each worker.
    formats
        Also write objects or polygons as GeoParquet (parquet).
    zarr
        Also write the maps as Zarr v3 (maps.zarr), one shard per tile.
    device
        Compute device; several workers share the GPUs of a machine in turn.
    """
    from geotune.utils.progress import DATA_MODULES, loading_libraries

    shown: list[str] = []

    def show(text: str) -> None:
        shown.append(text)
        message(text)

    with show_progress() as on_progress:
        with loading_libraries(on_progress, DATA_MODULES):
            from geotune.mapping.map_scenes import map_scenes
        result = map_scenes(
            [run, *more_runs],
            scenes,
            out_dir,
            workers=workers,
            ray=ray,
            shard=shard,
            combine=combine,
            tile=tile,
            threads=threads,
            **content.keywords,
            formats=formats or (),
            zarr=zarr,
            **vars(model),
            **vars(files),
            device=device,
            on_progress=on_progress,
            on_message=show,
        )
    if as_json:
        print_json(asdict(result))
        return
    done = f"{result.done:,} of {pluralize(result.tiles, 'tile')}"
    done += f" of {pluralize(result.scenes, 'scene')}"
    done += f" with {len(result.runs)} runs" if result.runs else ""
    out().print(escape(f"{result.out}: {done} in {result.seconds:.1f} s"))
    for name in result.files:
        out().print(f"  {escape(f'{result.out}/{name}')}")
    for note in (f"note: {each}" for each in result.notes):
        if note not in shown:
            message(note)
    for each in result.failed[:10]:
        message(f"failed: {each.tile or each.scene}: {each.error}")
    if result.failed:
        lists = f"{result.out}/{'*/' if result.runs else ''}failed.csv"
        message(f"{len(result.failed)} scenes or tiles failed; {lists} lists them")
