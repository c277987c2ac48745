"""Files that are unlike the others in what they state of themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable

from geotune.data.checks.scan import SceneScan
from geotune.data.checks.scanned import ScannedData
from geotune.data.issues import Issue, Severity
from geotune.data.scenes.scene import Scene
from geotune.utils.text import join_some

Fact = Callable[[Scene, SceneScan], Hashable]


def _crs(scene: Scene, scan: SceneScan) -> str:
    crs = scene.raster.crs
    return "none" if crs is None else crs.to_string() if crs.to_epsg() else crs.to_wkt()[:60]


def _pixel(scene: Scene, scan: SceneScan) -> str:
    """To two digits: in degrees or Mercator it varies with the latitude."""
    side = scene.raster.gsd_m
    return "unknown" if side is None else f"{side:.2g} m"


def _size(scene: Scene, scan: SceneScan) -> str:
    return "x".join(map(str, scene.shape))


def _dtype(scene: Scene, scan: SceneScan) -> str:
    return ", ".join(scan.dtypes)


def _nodata(scene: Scene, scan: SceneScan) -> str:
    return ", ".join(sorted({str(place.nodata) for place in scene.raster.band_files}))


FACTS: dict[str, tuple[Fact, Severity]] = {
    "number type": (_dtype, "warning"),
    "nodata value": (_nodata, "warning"),
    "side of a pixel": (_pixel, "warning"),
    "CRS": (_crs, "note"),  # zones of UTM differ and fit
    "size": (_size, "note"),  # smaller ones are padded
}


def check_consistency(examined: ScannedData) -> list[Issue]:
    """A finding for each fact in which some files differ from most."""
    scenes = examined.scenes
    found = []
    for what, (fact, severity) in FACTS.items():
        stated = [fact(scene, scan) for _, scene, scan in scenes]
        if what == "size" and len(set(stated)) == len(stated):
            continue  # whole scenes, each of its own size
        usual, count = Counter(stated).most_common(1)[0]
        odd = [
            (scene.raster.path, value)
            for (_, scene, _), value in zip(scenes, stated, strict=True)
            if value != usual
        ]
        if odd:
            named = [f"{path} ({value})" for path, value in odd]
            text = (
                f"the {what} is {usual} in {count} of {len(scenes)} scenes, but not in "
                f"{join_some(named)}"
            )
            found.append(Issue(severity, "likeness", text, odd[0][0]))
    return found
