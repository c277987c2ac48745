"""Reading real imagery."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from geotune.config.split_options import GroupSplitOptions
from geotune.data.checks.scan import scan_scenes
from geotune.data.datamodule import build_datamodule
from geotune.data.labels.open_labels import open_labels
from geotune.data.raster.windows import Window
from geotune.data.scenes.open_scenes import open_rasters, open_scenes
from geotune.data.splits.groups import split_by_group
from helpers.errors import raises


def test_ships(shared_data: Path) -> None:
    scenes = open_scenes(
        partial(open_labels, classes=["background", "ship"]),
        scenes=f"{shared_data}/ships/[b-d]*.tif",
        labels=f"{shared_data}/ships/{{stem}}.geojson",
        wanted_bands=["B08", "B02"],
    )
    made = build_datamodule(
        split_by_group(scenes, GroupSplitOptions(val=["busan"], test=["durban"])),
        window=128,
        samples=40,
        rare_class_fraction=0.75,
    )
    assert made.splits["train"] == ["cartagena", "casablanca"]
    assert made.class_counts["val"] == [724_428, 3_930]
    assert len(made.val) == 54
    assert all(" apart: " in note or "size" in note for note in made.notes), made.notes
    assert made.distances_m["train-val"] > 1e7  # from Morocco to Korea
    ships = np.mean([bool((made.train[i].target.mask == 1).any()) for i in range(40)])
    assert ships > 0.6


def test_clouds(shared_data: Path) -> None:
    bands = ["blue", "green", "red", "nir", "swir1", "swir2"]
    [scene] = open_scenes(
        partial(
            open_labels,
            classes=["shadow", "water", "land", "cloud"],
            class_values={"shadow": 0, "water": 1, "land": 3, "cloud": 4},
        ),
        scenes=f"{shared_data}/clouds/landsat5*.tif",
        labels=f"{shared_data}/clouds/{{stem}}_mask.tif",
        bands=bands,
        wanted_bands=["nir"],
    )
    [result] = scan_scenes([scene], 128)
    assert result.class_counts.tolist() == [60_488, 2_698, 113_029, 85_929]
    assert result.means[0] == pytest.approx(0.277, abs=1e-3)


def test_one_file_per_band_with_sparse_labels(shared_data: Path) -> None:
    folder = shared_data / "scene"
    sources = open_rasters(
        f"{folder}/{{band}}.tif", wanted_bands=["B04", "B02"], nodata=255
    )  # its border
    image = sources["scene"].read(Window(0, 0, 2201, 2629))
    assert np.isnan(image).all(axis=0).sum() == 1_822_377
    classes = ["Herbaceous", "Forested Wetland", "Sand", "Emergent Wetland", "WetSand"]
    labels = folder / "rcr_landcover.shp"
    with raises("class-unknown", file=labels, mentions=["'Subtidal Haline' (1 features)"]):
        open_scenes(
            partial(open_labels, classes=classes),
            scenes=f"{folder}/{{band}}.tif",
            labels=str(labels),
        )
