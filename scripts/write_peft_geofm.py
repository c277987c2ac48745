"""Write `recipes/peft_geofm/configurations.csv` from a clone of github.com/IBM/peft-geofm.

    git clone https://github.com/IBM/peft-geofm
    python scripts/write_peft_geofm.py peft-geofm

One line per configuration of arXiv 2504.17397: its labels in `suite.yaml`, and the recipe keys that
differ from configuration to configuration. Learning rates are the authors', unrounded.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import yaml

TABLE = Path(__file__).parents[1] / "recipes/peft_geofm/configurations.csv"
METHODS = {
    "linear_probing": "Linear Prob.",
    "vpt": "VPT",
    "lora": "LoRA",
    "vit_adapter": "ViT Adapter",
}
MODELS = {
    "resnet50": "UNet (Rand.)",
    "timm_vit_base_patch16_224.augreg_in21k_ft_in1k": "ViT (IN-21K)",
    "ssl4eos12_resnet50_sentinel2_all_decur": "DeCUR",
    "clay_v1_base": "Clay v1",
    "prithvi_eo_v1_100": "Prithvi 1.0 100M",
    "prithvi_eo_v2_300": "Prithvi 2.0 300M",
    "prithvi_eo_v2_300_tl": "Prithvi 2.0 300M TL",
}
DECODERS = {
    "LinearDecoder": "default",
    "FCNDecoder": "fcn",
    "UNetDecoder": "unet",
    "UperNetDecoder": "upernet",
}
NO_DATES = ("m_sa_crop_type",)
NO_LOCATIONS = ("m_sa_crop_type", "m_cashew_plantation")
S2_L1C = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12"]


def read_configuration(configs: Path, path: Path) -> dict[str, Any]:
    """The line of a configuration."""
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    # some of the relative paths have a ../ too many
    data_path = configs / "datamodules" / "/".join(Path(config["data"]).parts[-2:])
    data = yaml.safe_load(data_path.read_text(encoding="utf-8"))["init_args"]
    training = config["model"]["init_args"]
    model = training["model_args"]
    recipe = data_path.parent.name.lower()
    full = path.stem not in METHODS
    label = MODELS[model["backbone"]]
    if label in ("Clay v1", "DeCUR") and len(data["bands"]) == 6:
        label += " (6 bands)"
    metadata = "tl" in data["use_metadata"].rpartition("_")[2]
    line: dict[str, Any] = {
        "recipe": recipe,
        "model": label,
        "method": "Full FT" if full else METHODS[path.stem],
        "decoder": DECODERS[model["decoder"]] if "decoder" in model else "default",
        "metadata": "time and location" if metadata else "none",
        "train.lr": training["lr"],
    }
    if full:
        line["train.backbone_lr"] = training["lr"]
    if "decoder_upsampling_size" in model:
        line["decoder.upsample"] = model["decoder_upsampling_size"]
    if data["batch_size"] != (32 if recipe == "reben_7k" else 8):
        line["train.batch_size"] = data["batch_size"]
    if "Clay" in label:
        line["backbone.gsd"] = 30 if recipe == "burn_scars" else 10
    if len(data["bands"]) == len(S2_L1C):
        line["backbone.bands"] = f"[{', '.join(S2_L1C)}]"
    if metadata and recipe in NO_LOCATIONS:
        line["backbone.metadata"] = "[]" if recipe in NO_DATES else "[time]"
    return line


def main(clone: Path) -> None:
    """Write the table."""
    configs = clone / "configs"
    lines = [
        read_configuration(configs, path)
        for folder in ("peft", "metadata", "decoders")
        for path in sorted((configs / folder).glob("**/*.yaml"))
    ]
    lines.sort(key=lambda line: str(line["recipe"]))
    columns = list(dict.fromkeys(key for line in lines for key in line))
    with TABLE.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
