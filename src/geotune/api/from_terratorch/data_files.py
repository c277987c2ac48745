"""The images and labels that TerraTorch's generic data modules would read, as a table."""

from __future__ import annotations

import csv
import glob
import io
import os
from collections.abc import Sequence
from pathlib import Path

from geotune.api.from_terratorch.config_section import ConfigSection
from geotune.errors import GeotuneError
from geotune.utils.text import pluralize

SPLITS = ("train", "val", "test")
Pairs = dict[str, list[tuple[str, str]]]
"""Image and label (a file, or the class of an image) of each split."""


def list_pairs(data: ConfigSection, *, images: bool) -> Pairs:
    """Images with their labels: the n-th image has the n-th label, by name.

    Args:
        data: `data.init_args`.
        images: the labels are of whole images, and the names of their folders.

    Raises `GeotuneError` if a folder is missing, and if images and labels differ in number.
    """
    by_extension = not data.take("ignore_split_file_extensions", True)
    substring = bool(data.take("allow_substring_split_file", True))
    image_glob, label_glob = data.take("img_grep", "*"), data.take("label_grep", "*")
    pairs: Pairs = {}
    for split in SPLITS:
        root = data.take(f"{split}_data_root")
        label_root = data.take(f"{split}_label_data_root", root)
        listed = data.take(f"{split}_split")
        if root is None:
            continue
        wanted = None if listed is None else _names(data, f"{split}_split", Path(listed))
        folder = _folder(data, f"{split}_data_root", root)
        pattern = "*/**" if images else str(image_glob)
        found = _files(folder, pattern, wanted, by_extension, substring)
        if images:
            pairs[split] = [(path, Path(path).relative_to(folder).parts[0]) for path in found]
            continue
        folder = _folder(data, f"{split}_label_data_root", label_root)
        labels = _files(folder, str(label_glob), wanted, by_extension, substring)
        if len(found) != len(labels) or not found:
            raise GeotuneError(
                f"{data.file}: {data.key(f'{split}_data_root')}: found "
                f"{pluralize(len(found), 'image')} ({image_glob}) and "
                f"{pluralize(len(labels), 'label')} ({label_glob}), expected as many of both; "
                "correct img_grep and label_grep",
                code="labels-missing",
                key=data.key(f"{split}_data_root"),
                file=data.file,
            )
        pairs[split] = list(zip(found, labels, strict=True))
    if "train" not in pairs:
        raise data.error("train_data_root", "a folder of images")
    return pairs


def without_repeats(pairs: Pairs) -> tuple[Pairs, list[str]]:
    """Each image in its first split only, and notes on those that were left out of others."""
    seen: dict[str, str] = {}
    kept: Pairs = {}
    notes = []
    for split, members in pairs.items():
        own = [(image, label) for image, label in members if image not in seen]
        if len(own) < len(members):
            other = next(seen[image] for image, _ in members if image in seen)
            notes.append(
                f"data.init_args.{split}_data_root: {pluralize(len(members) - len(own), 'image')} "
                f"of {split} are in {other} too, and stay only there"
            )
        seen |= {image: split for image, _ in own}
        if own:
            kept[split] = own
    return kept, notes


def as_table(pairs: Pairs, folder: Path, *, images: bool) -> bytes:
    """The table of scenes, or of labelled images, with paths relative to `folder`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    stems = [Path(image).stem for members in pairs.values() for image, _ in members]
    named = len(set(stems)) < len(stems) and not images
    header = ["path", "label", "split"] if images else ["image", "label", "split"]
    writer.writerow([*header, *(["name"] if named else [])])
    for split, members in pairs.items():
        for number, (image, label) in enumerate(members):
            row = [_relative(image, folder), label if images else _relative(label, folder), split]
            stem = Path(image).stem
            name = stem if stems.count(stem) == 1 else f"{split}_{number}_{stem}"
            writer.writerow([*row, *([name] if named else [])])
    return text.getvalue().encode()


def _relative(path: str, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()


def _folder(data: ConfigSection, key: str, path: object) -> Path:
    folder = Path(str(path))
    if not folder.is_dir():
        raise GeotuneError(
            f"{data.file}: {data.key(key)}: {folder}: folder not found; run geotune where its data "
            "are, or correct the path",
            code="file-missing",
            key=data.key(key),
            file=folder,
        )
    return folder


def _names(data: ConfigSection, key: str, path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise GeotuneError(
            f"{data.file}: {data.key(key)}: {path}: cannot be read ({error}); expected a text file "
            "with a name per line",
            code="file-missing" if isinstance(error, FileNotFoundError) else "file-unreadable",
            key=data.key(key),
            file=path,
        ) from error
    return [line.strip() for line in lines if line.strip()]


def _files(
    folder: Path, pattern: str, wanted: Sequence[str] | None, by_extension: bool, substring: bool
) -> list[str]:
    """Files of a pattern, of which the names in a list are chosen as TerraTorch does."""
    files = sorted(glob.glob(os.path.join(glob.escape(str(folder)), pattern), recursive=True))
    files = [path for path in files if Path(path).is_file()]
    if wanted is None:
        return files
    names = {name if by_extension else os.path.splitext(name)[0] for name in wanted}

    def chosen(path: str) -> bool:
        name = os.path.basename(path)
        name = name if by_extension else os.path.splitext(name)[0]
        return any(part in name for part in names) if substring else name in names

    return [path for path in files if chosen(path)]
