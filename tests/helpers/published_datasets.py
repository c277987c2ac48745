"""Writers of tiny copies of published data sets with their folders, file names, types and formats.

Every image is a bright, labelled block on dark ground, `SIDE` pixels wide unless the originals are
smaller.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin

from geotune.data.published.tortilla import unpack_tortilla
from geotune.data.raster.open_raster import open_raster
from geotune.datasets.registry import get_dataset_info
from helpers.annotation_files import Thing, upright, write_dota, write_fair1m, write_voc
from helpers.tortilla import content, pack, parquet, sample

SIDE = 48
BLOCK = slice(12, 28)
DRIVERS = {".tif": "GTiff", ".png": "PNG", ".jpg": "JPEG"}
Write = Callable[[Path, Sequence[str]], None]
_IMAGES = count()
"""Seeds of the noise."""


def write(
    path: Path, values: Any, *, pixel_m: float | None = None, crs: int = 32633, ground: int = 0
) -> Path:
    """Write `(C, H, W)` or `(H, W)` as a raster; rasters with another `ground` do not overlap."""
    values = np.asarray(values)
    values = values[None] if values.ndim == 2 else values
    path.parent.mkdir(parents=True, exist_ok=True)
    georeference: dict[str, Any] = {}
    if pixel_m is not None:
        corner = (10 + 0.05 * ground, 50) if crs == 4326 else (500_000, 5_000_000 - 5_000 * ground)
        size = pixel_m * (1e-5 if crs == 4326 else 1)
        georeference = {"crs": f"EPSG:{crs}", "transform": from_origin(*corner, size, size)}
    with rasterio.open(
        path,
        "w",
        driver=DRIVERS[path.suffix],
        count=len(values),
        height=values.shape[1],
        width=values.shape[2],
        dtype=values.dtype,
        **georeference,
    ) as file:
        file.write(values)
    return path


def block(side: int, inside: float, outside: float, dtype: str) -> NDArray[Any]:
    """`(side, side)` of the value `outside`, with a block of the value `inside`."""
    values = np.full((side, side), outside, dtype)
    scale = side / SIDE
    extent = slice(round(BLOCK.start * scale), round(BLOCK.stop * scale))
    values[extent, extent] = inside
    return values


def image(bands: int, dtype: str, maximum: float, side: int = SIDE) -> NDArray[Any]:
    """A noisy image `(bands, side, side)`; no two are equal."""
    noise = np.random.default_rng(next(_IMAGES)).uniform(0, 0.2, (bands, side, side))
    steps = np.arange(1, bands + 1)[:, None, None] / bands
    return (maximum * (block(side, 0.6, 0.1, "float32") * steps + noise)).astype(dtype)


# ---------------------------------------------------------------- masks
def sen1floods11(root: Path, names: Sequence[str]) -> None:
    folder = root / "v1.1/data/flood_events/HandLabeled"
    mask = block(SIDE, 1, 0, "int16")
    mask[:3] = -1
    for i, name in enumerate(names):
        scene = {"pixel_m": 10, "crs": 4326, "ground": i}
        write(folder / f"S2Hand/{name}_S2Hand.tif", image(13, "int16", 4000), **scene)
        write(folder / f"LabelHand/{name}_LabelHand.tif", mask, **scene)


def burn_scars(root: Path, names: Sequence[str]) -> None:
    mask = block(SIDE, 1, 0, "int16")
    mask[:3] = -1
    for i, name in enumerate(names):
        pixels = image(6, "float32", 0.5)
        pixels[:, -2:] = -9999
        scene = root / ("validation" if i % 3 == 0 else "training") / "subsetted_512x512_HLS.S30."
        write(Path(f"{scene}{name}.4_merged.tif"), pixels, pixel_m=30, ground=i)
        write(Path(f"{scene}{name}.4.mask.tif"), mask, pixel_m=30, ground=i)


def reben_7k(root: Path, names: Sequence[str]) -> None:
    """Bands of 10, 20 and 60 m with the same extent."""
    metres = {band: 20 for band in ("B05", "B06", "B07", "B8A", "B11", "B12")}
    metres |= {"B01": 60, "B09": 60}
    codes = block(120, 312, 211, "uint16")
    codes[:4], codes[4:8] = 999, 112
    for i, name in enumerate(names):
        product = name[:-6]
        for band in get_dataset_info("reben_7k").bands:
            size = metres.get(band, 10)
            pixels = image(1, "uint16", 3000, 1200 // size)
            write(
                root / "BigEarthNet-S2" / product / name / f"{name}_{band}.tif",
                pixels,
                pixel_m=size,
                ground=i,
            )
        write(
            root / "Reference_Maps" / product / name / f"{name}_reference_map.tif",
            codes,
            pixel_m=10,
            ground=i,
        )


GEOBENCH_BANDS = [
    "01 - Coastal aerosol",
    "02 - Blue",
    "03 - Green",
    "04 - Red",
    "05 - Vegetation Red Edge",
    "06 - Vegetation Red Edge",
    "07 - Vegetation Red Edge",
    "08 - NIR",
    "08A - Vegetation Red Edge",
    "09 - Water vapour",
    "11 - SWIR",
    "12 - SWIR",
    "Cloud Probability",
]


def geobench(folder: str, date: str) -> Write:
    def write_copy(root: Path, names: Sequence[str]) -> None:
        import h5py

        (root / folder).mkdir(parents=True)
        splits = {"train": ["id_1", "id_2"], "valid": ["id_3"], "test": ["id_4"]}
        (root / folder / "default_partition.json").write_text(json.dumps(splits))
        for name in chain.from_iterable(splits.values()):
            with h5py.File(root / folder / f"{name}.hdf5", "w") as file:
                for number, band in enumerate(GEOBENCH_BANDS, 1):
                    layer = block(SIDE, 100 * number, 10 * number, "int16") + int(name[-1])
                    file.create_dataset(f"{band}_{date}", data=layer)
                file.create_dataset("label", data=block(SIDE, 3, 0, "int16"))
                file.attrs["pickle"] = "never read"

    return write_copy


def loveda(root: Path, names: Sequence[str]) -> None:
    number = 0
    mask = block(SIDE, 2, 7, "uint8")
    mask[:3] = 0
    for split in ("Train", "Val", "Test"):
        for region in ("Rural", "Urban"):
            folder = root / split / region
            write(folder / f"images_png/{number}.png", image(3, "uint8", 255))
            if split != "Test":
                write(folder / f"masks_png/{number}.png", mask)
            number += 1


def colour_mask() -> NDArray[np.uint8]:
    """RGB mask `(3, SIDE, SIDE)` of a building on low vegetation."""
    building, vegetation = (np.array(c)[:, None, None] for c in ([0, 0, 255], [0, 255, 255]))
    return np.where(block(SIDE, 1, 0, "uint8") == 1, building, vegetation).astype("uint8")


def potsdam(root: Path, names: Sequence[str]) -> None:
    for i, name in enumerate([*names, "7_10"]):
        scene = root / f"4_Ortho_RGBIR/top_potsdam_{name}_RGBIR.tif"
        write(scene, image(4, "uint8", 255), pixel_m=0.05, ground=i)
        write(root / f"5_Labels_all/top_potsdam_{name}_label.tif", colour_mask())


def vaihingen(root: Path, names: Sequence[str]) -> None:
    for i, name in enumerate(names):
        file = f"top_mosaic_09cm_area{name}.tif"
        write(root / "top" / file, image(3, "uint8", 255), pixel_m=0.09, ground=i)
        write(root / file, colour_mask())


# ---------------------------------------------------------------- objects
def things(name: str) -> list[Thing]:
    return [upright(12, 12, 28, 28, name=name), upright(33, 30, 45, 40, name=name)]


def dior(root: Path, names: Sequence[str]) -> None:
    splits = {"train": ["00001", "00002"], "val": ["00003"], "test": ["11726"]}
    lists = root / "ImageSets/Main"
    lists.mkdir(parents=True)
    objects = things("Expressway-Service-area")
    for split, ids in splits.items():
        (lists / f"{split}.txt").write_text("\n".join(ids) + "\n")
        for name in ids:
            half = "test" if split == "test" else "trainval"
            path = write(root / f"JPEGImages-{half}/{name}.jpg", image(3, "uint8", 255))
            for kind in ("Horizontal", "Oriented"):
                folder = root / f"Annotations/{kind} Bounding Boxes"
                folder.mkdir(parents=True, exist_ok=True)
                target = folder / f"{name}.xml"
                if kind == "Horizontal":
                    write_voc(target, open_raster(path), objects, [])
                else:
                    target.write_text(oriented_voc(objects))


def oriented_voc(objects: list[Thing]) -> str:
    """Annotations in the format of DIOR-R."""
    text = f"<annotation><size><width>{SIDE}</width><height>{SIDE}</height></size>"
    for thing in objects:
        corners = dict(
            zip(
                ("left_top", "right_top", "right_bottom", "left_bottom"),
                thing.corners.astype(int).tolist(),
                strict=True,
            )
        )
        box = "".join(
            f"<{axis}_{position}>{value}</{axis}_{position}>"
            for position, corner in corners.items()
            for axis, value in zip("xy", corner, strict=True)
        )
        text += (
            f"<object><type>robndbox</type><name>{thing.name}</name><difficult>0</difficult>"
            f"<robndbox>{box}</robndbox><angle>0</angle></object>"
        )
    return text + "</annotation>"


def dota(root: Path, names: Sequence[str]) -> None:
    """The last image is greyscale."""
    for i, name in enumerate(["P0000", "P0001", "P0002", "P0003"]):
        split = "val" if i > 1 else "train"
        pixels = image(1 if i == 3 else 3, "uint8", 255)
        path = write(root / split / f"images/{name}.png", pixels)
        (root / split / "labelTxt").mkdir(exist_ok=True)
        write_dota(root / split / f"labelTxt/{name}.txt", open_raster(path), things("plane"), [])


def fair1m(root: Path, names: Sequence[str]) -> None:
    for folder, number in (("train/part1", 0), ("train/part2", 1), ("validation", 0)):
        path = write(root / folder / f"images/{number}.tif", image(3, "uint8", 255))
        (root / folder / "labelXml").mkdir(exist_ok=True)
        label = root / folder / f"labelXml/{number}.xml"
        write_fair1m(label, open_raster(path), things("Boeing737"), [])


def nwpu_vhr10(root: Path, names: Sequence[str]) -> None:
    folder = root / "NWPU VHR-10 dataset"
    (folder / "ground truth").mkdir(parents=True)
    for i in range(1, 6):
        write(folder / f"positive image set/{i:03}.jpg", image(3, "uint8", 255))
        text = "(12,12),(28,28),1 \n(33,30),(45,40),10 \n\n"
        (folder / f"ground truth/{i:03}.txt").write_text(text)
    write(folder / "negative image set/001.jpg", image(3, "uint8", 255))


# ---------------------------------------------------------------- image-level classes
def by_class(
    folder: str, file: str, bands: int, dtype: str, lists: str, listed_as: str = ""
) -> Write:
    """Writes an image of each class in each split; `file` and `lists` are name patterns."""

    def write_copy(root: Path, names: Sequence[str]) -> None:
        (info,) = (i for i in map(get_dataset_info, WRITERS) if i.images[0].startswith(folder))
        root.mkdir(exist_ok=True)
        listed: dict[str, list[str]] = {"train": [], "val": [], "test": []}
        for label in info.classes:
            for number, split in enumerate(listed, 1):
                name = file.format(label=label, number=number)
                listed[split].append(Path(name).stem + (listed_as or Path(name).suffix))
                pixels = image(bands, dtype, 255 if dtype == "uint8" else 4000)
                write(root / folder / label / name, pixels)
        for split, lines in listed.items():
            (root / lists.format(split=split)).write_text("\n".join(lines) + "\n")

    return write_copy


# ---------------------------------------------------------------- GEO-Bench-2
def geobench2(name: str, dtype: str, inside: int, outside: int) -> Write:
    """Writes a tortilla of images and masks, and unpacks it."""

    def write_copy(root: Path, names: Sequence[str]) -> None:
        bands = len(get_dataset_info(f"geobench2_{name}").bands)
        samples = []
        for i, split in enumerate(("train", "train", "validation", "test")):
            scratch = root.with_suffix(".tif")
            values = image(bands, dtype, 250 if dtype == "uint8" else 4000)
            scene = {"pixel_m": 10, "ground": i}
            path = write(scratch, values, **scene)
            if name == "spacenet7":  # with a band of transparency
                path = write(scratch, np.concatenate([values, 0 * values[:1] + 255]), **scene)
                with rasterio.open(path, "r+") as file:
                    file.colorinterp = [*ColorInterp][3:7]
            pixels = content(path)
            mask = content(write(scratch, block(SIDE, inside, outside, "uint8"), **scene))
            samples.append(sample(f"sample_{i}", split, [("GTiff", pixels), ("GTiff", mask)]))
        unpack(root, samples)

    return write_copy


def everwatch(root: Path, names: Sequence[str]) -> None:
    """Images whose georeference is unusable, as that of the originals."""
    boxes = [
        {"label": "Great Egret", "xmin": 12, "ymin": 12, "xmax": 28, "ymax": 28},
        {"label": "White Ibis", "xmin": 33, "ymin": 30, "xmax": 45, "ymax": 40},
    ]
    samples = []
    for i, split in enumerate(("train", "train", "validation", "test")):
        pixels = image(3, "uint8", 250)
        path = write(root.with_suffix(".tif"), pixels)
        with rasterio.open(path, "r+") as file:
            file.crs, file.transform = "EPSG:4326", from_origin(-80.5, 25.9, 1, 1)
        items = [("GTiff", content(path)), ("GeoParquet", parquet(boxes))]
        samples.append(sample(f"sample_{i}", split, items))
    unpack(root, samples)


def unpack(root: Path, samples: Sequence[Any]) -> None:
    tortilla = root.with_suffix(".tortilla")
    tortilla.write_bytes(pack(samples))
    assert unpack_tortilla([tortilla], root) == len(samples)


WRITERS: dict[str, Write] = {
    "sen1floods11": sen1floods11,
    "burn_scars": burn_scars,
    "reben_7k": reben_7k,
    "m_cashew_plantation": geobench("m-cashew-plant", "2019-11-05"),
    "m_sa_crop_type": geobench("m-SA-crop-type", "2017-04-01"),
    "loveda": loveda,
    "potsdam": potsdam,
    "vaihingen": vaihingen,
    "dior": dior,
    "dota": dota,
    "fair1m": fair1m,
    "nwpu_vhr10": nwpu_vhr10,
    "eurosat": by_class(
        "EuroSAT_MS", "{label}_{number}.tif", 13, "uint16", "eurosat-{split}.txt", ".jpg"
    ),
    "eurosat_rgb": by_class(
        "EuroSAT_RGB", "{label}_{number}.jpg", 3, "uint8", "eurosat-{split}.txt"
    ),
    "uc_merced": by_class(
        "UCMerced_LandUse/Images", "{label}{number:02}.tif", 3, "uint8", "uc_merced-{split}.txt"
    ),
    "resisc45": by_class(
        "NWPU-RESISC45", "{label}_{number:03}.jpg", 3, "uint8", "resisc45-{split}.txt"
    ),
    "geobench2_burn_scars": geobench2("burn_scars", "float32", 1, 0),
    "geobench2_caffe": geobench2("caffe", "uint8", 2, 3),
    "geobench2_cloudsen12": geobench2("cloudsen12", "uint16", 1, 0),
    "geobench2_flair2": geobench2("flair2", "uint8", 19, 1),
    "geobench2_spacenet7": geobench2("spacenet7", "uint8", 1, 0),
    "geobench2_everwatch": everwatch,
}
"""Data set name to writer; `names` are the images of the published split if it lists them."""
