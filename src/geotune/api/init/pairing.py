"""Which label file belongs to which image, by names and folders."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from geotune.data.scenes.find import find_scenes, image_path
from geotune.errors import GeotuneError
from geotune.utils.text import nfc

MASK_WORDS = (
    "mask", "masks", "label", "labels", "labeled", "gt", "groundtruth", "truth", "annotation",
    "annotations", "target", "targets", "lbl", "seg", "segmentation", "reference", "landcover",
)  # fmt: skip
IMAGE_WORDS = ("image", "images", "img", "sat", "rgb", "ms", "scene", "s2")
SPLIT_WORDS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
    "dev": "val", "test": "test", "testing": "test",
}  # fmt: skip
TRIED_IMAGES = 200
"""Images from which rules are derived; every rule is then tried on all."""

Affix = tuple[str, str]
"""What precedes and follows the name that an image and its label share."""


class Rule(NamedTuple):
    """Where the label file of an image is.

    Attributes:
        image_dirs, label_dirs: the folders in which the paths differ.
        tail: number of folders after those.
        image_affix, label_affix: around the name that both share.
        suffix: of the label file.
    """

    image_dirs: tuple[str, ...]
    label_dirs: tuple[str, ...]
    tail: int
    image_affix: Affix
    label_affix: Affix
    suffix: str

    def label_of(self, image: Path) -> Path | None:
        """The label file of an image, both relative to the folder; None if the rule differs."""
        start, end = self.image_affix
        dirs, stem = image.parent.parts, nfc(image.stem)
        place = len(dirs) - self.tail - len(self.image_dirs)
        if place < 0 or dirs[place : place + len(self.image_dirs)] != self.image_dirs:
            return None
        if len(stem) <= len(start) + len(end) or not (
            stem.startswith(start) and stem.endswith(end)
        ):
            return None
        name = stem[len(start) : len(stem) - len(end)]
        parts = (*dirs[:place], *self.label_dirs, *dirs[place + len(self.image_dirs) :])
        return Path(*parts, f"{self.label_affix[0]}{name}{self.label_affix[1]}{self.suffix}")

    @property
    def simplicity(self) -> tuple[int, int]:
        """Rules that change less are more likely."""
        affixes = sum(map(len, (*self.image_affix, *self.label_affix)))
        return len(self.image_dirs) + len(self.label_dirs), affixes


class Pairs(NamedTuple):
    """A rule, and the label file of each image that has one; paths relative to the folder."""

    rule: Rule
    labels: Mapping[Path, Path]


def words_of(name: str) -> list[str]:
    """The words of a file or folder name in lower case: `roofMask_01` has roof, mask, 01."""
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", name)]


def split_of(path: Path) -> str | None:
    """The split that the nearest folder or the name states, as in `train2017/a.jpg`."""
    for part in (*reversed(path.parent.parts), path.stem):
        for word in words_of(part):
            if word in SPLIT_WORDS:
                return SPLIT_WORDS[word]
    return None


def is_mask_name(path: Path) -> bool:
    """Whether a folder, or the first or last word of the name, is that of a mask."""
    words = words_of(path.stem)
    if any(set(words_of(part)) & set(MASK_WORDS) for part in path.parent.parts):
        return True
    return len(words) > 1 and bool({words[0], words[-1]} & set(MASK_WORDS))


def find_pairs(images: Sequence[Path], labels: Sequence[Path]) -> list[Pairs]:
    """The rules by which images have label files; those with the most pairs, and simplest, first.

    Paths are relative to one folder.
    """
    by_name: dict[str, list[tuple[Path, Affix]]] = defaultdict(list)
    for label in labels:
        for name, affix in bare_names(label.stem, MASK_WORDS):
            by_name[name].append((label, affix))
    votes: Counter[Rule] = Counter()
    step = max(1, len(images) // TRIED_IMAGES)
    for image in images[::step]:
        found = [
            _rule(image, image_affix, label, label_affix)
            for name, image_affix in bare_names(image.stem, IMAGE_WORDS)
            for label, label_affix in by_name.get(name, ())
            if label != image
        ]
        nearest = min((rule.simplicity[0] for rule in found), default=0)
        votes.update({rule for rule in found if rule.simplicity[0] == nearest})
    existing = {Path(nfc(str(label))): label for label in labels}
    pairs = []
    for rule, _ in votes.most_common(20):
        places = ((image, rule.label_of(image)) for image in images)
        matched = {image: existing[at] for image, at in places if at is not None and at in existing}
        pairs.append(Pairs(rule, matched))
    return sorted(pairs, key=lambda each: (-len(each.labels), each.rule.simplicity))


def bare_names(stem: str, words: Sequence[str]) -> Iterator[tuple[str, Affix]]:
    """Yield the name as it is, and without one of the words at its start or end."""
    stem = nfc(stem)
    yield stem, ("", "")
    listed = "|".join(words)
    if match := re.fullmatch(rf"((?:{listed})[_\-. ]+)(.+)", stem, re.IGNORECASE):
        yield match[2], (match[1], "")
    if match := re.fullmatch(rf"(.+?)([_\-. ]+(?:{listed}))", stem, re.IGNORECASE):
        yield match[1], ("", match[2])


def _rule(image: Path, image_affix: Affix, label: Path, label_affix: Affix) -> Rule:
    ours, others = image.parent.parts, label.parent.parts
    shorter = min(len(ours), len(others))
    head = next((i for i in range(shorter) if ours[i] != others[i]), shorter)
    tail = 0
    while tail < shorter - head and ours[-1 - tail] == others[-1 - tail]:
        tail += 1
    return Rule(
        ours[head : len(ours) - tail],
        others[head : len(others) - tail],
        tail,
        image_affix,
        label_affix,
        label.suffix,
    )


def as_patterns(
    folder: Path, rule: Rule, images: Sequence[Path], labels: Iterable[Path]
) -> tuple[str | list[str], str] | None:
    """`data.scenes` and `data.labels` that find exactly these images; None if there are none.

    Args:
        folder: of all files.
        rule: where labels are.
        images: relative to the folder.
        labels: relative to the folder; rasters among them may match the pattern of the images too.
    """
    if len({len(image.parent.parts) for image in images}) > 1:
        return None
    columns = list(zip(*(image.parent.parts for image in images), strict=True))
    place = len(columns) - rule.tail - len(rule.image_dirs)
    inside = range(place, place + len(rule.image_dirs))
    dirs, num_fields = [], 0
    for i, values in enumerate(columns):
        if i in inside or len(set(values)) == 1:
            dirs.append(values[0])
        else:
            num_fields += 1
            is_split = {value.lower() for value in values} <= set(SPLIT_WORDS)
            dirs.append("{part}" if is_split else f"{{folder{num_fields}}}")
    label_dirs = [*dirs[:place], *rule.label_dirs, *dirs[place + len(rule.image_dirs) :]]
    named = num_fields > 0 or rule.image_affix != ("", "")
    start, end = rule.image_affix
    text = "{name}" if named else "*"
    suffixes = sorted({image.suffix for image in images})
    scenes = ["/".join([str(folder), *dirs, f"{start}{text}{end}{each}"]) for each in suffixes]
    text = "{name}" if named else "{stem}"
    name = f"{rule.label_affix[0]}{text}{rule.label_affix[1]}{rule.suffix}"
    try:
        found = {image_path(scene.files) for scene in find_scenes(scenes).values()}
    except GeotuneError:  # two scenes of one name
        return None
    if found - {folder / label for label in labels} != {folder / image for image in images}:
        return None
    return scenes[0] if len(scenes) == 1 else scenes, "/".join([str(folder), *label_dirs, name])
