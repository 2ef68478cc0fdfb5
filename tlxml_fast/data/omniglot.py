"""Omniglot, from torchvision's layout on disk or from one .npz file."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import DataError
from ..progress import progress_bar
from .pool import ImagePool

# The authors' own division of the alphabets.
SPLITS = {
    "train": ("images_background",),
    "test": ("images_evaluation",),
    "all": ("images_background", "images_evaluation"),
}


def omniglot(
    path: str | os.PathLike, split: str = "train", image_size: int = 28, rotations: bool = False
) -> ImagePool:
    """Omniglot's characters, white on black, [N, 1, image_size, image_size]; the alphabet is the group.

    path       the folder that has images_background and images_evaluation, or omniglot-py with them, or one
               of the two itself; black on white, as torchvision unpacks them. Or an .npz file with x
               [N, H, W] uint8 white on black, y [N], and classes ("images_background/ALPHABET/characterNN").
    split      "train" (images_background), "test" (images_evaluation) or "all"
    rotations  adds each character turned by 90°, 180° and 270° as three further classes of its alphabet

    Tasks mix alphabets unless `sample(within_groups=True)` is asked for. Raises DataError if the
    files are absent or are not what is described here.
    """
    if split not in SPLITS:
        raise DataError(f"omniglot: split {split!r} is none of {', '.join(SPLITS)}")
    if image_size < 1:
        raise DataError(f"omniglot: image_size is {image_size}; it must be at least 1")
    path = Path(path).expanduser()
    if path.is_file():
        images, labels, names = _from_npz(path, SPLITS[split], image_size)
    elif path.is_dir():
        images, labels, names = _from_folders(path, SPLITS[split], image_size)
    else:
        raise DataError(f"omniglot: there is no file or folder {path}")
    names = [name.partition("/")[2] for name in names]
    if rotations:
        images, labels, names = _with_rotations(images, labels, names)
    alphabets = [name.partition("/")[0] for name in names]
    return ImagePool(images[:, None], labels, names, alphabets, name="omniglot", split=split)


def _from_npz(path: Path, parts: tuple[str, ...], size: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            x, y, classes = (stored[key] for key in ("x", "y", "classes"))
    except KeyError as error:
        raise DataError(f"omniglot: {path} lacks an array that is needed: {error.args[0]}") from None
    except (OSError, ValueError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise DataError(f"omniglot: {path} cannot be read as an .npz file ({error})") from None
    if x.dtype != np.uint8 or x.ndim != 3 or y.shape != x.shape[:1] or not np.issubdtype(y.dtype, np.integer):
        raise DataError(
            f"omniglot: {path} has x {x.dtype} {x.shape} and y {y.dtype} {y.shape}, "
            "not x uint8 [N, H, W] and y integer [N]"
        )
    if (
        classes.ndim != 1
        or classes.dtype.kind != "U"
        or (len(y) and not 0 <= y.min() <= y.max() < len(classes))
    ):
        raise DataError(f"omniglot: in {path}, classes are not the names that y counts")
    chosen = [i for i, name in enumerate(classes.tolist()) if name.startswith(tuple(f"{p}/" for p in parts))]
    if not chosen:
        raise DataError(f"omniglot: {path} has no class whose name starts with {' or '.join(parts)}")
    renumber = np.full(len(classes), -1)
    renumber[chosen] = np.arange(len(chosen))
    kept = renumber[y] >= 0
    images = x[kept]
    if images.shape[1:] != (size, size):
        images = np.stack([_resized(Image.fromarray(image), size) for image in images])
    return images, renumber[y][kept], [str(classes[i]) for i in chosen]


def _from_folders(path: Path, parts: tuple[str, ...], size: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    characters = [
        (part, folder)
        for part in parts
        for folder in sorted(_find_part(path, part).glob("[!.]*/[!.]*"))
        if folder.is_dir()
    ]
    if not characters:
        raise DataError(f"omniglot: {path} has no ALPHABET/characterNN folders")
    images, labels = [], []
    with progress_bar("Reading Omniglot", len(characters)) as advance:
        for label, (_, folder) in enumerate(characters):
            files = sorted(folder.glob("[!.]*.png"))
            if not files:
                raise DataError(f"omniglot: {folder} has no .png file")
            images += [255 - _read(file, size) for file in files]
            labels += [label] * len(files)
            advance()
    names = [f"{part}/{folder.parent.name}/{folder.name}" for part, folder in characters]
    return np.stack(images), np.array(labels), names


def _find_part(path: Path, part: str) -> Path:
    for folder in (path / part, path / "omniglot-py" / part):
        if folder.is_dir():
            return folder
    if path.name == part:
        return path
    raise DataError(f"omniglot: {path} has no folder {part}, nor omniglot-py/{part}")


def _read(file: Path, size: int) -> np.ndarray:
    try:
        with Image.open(file) as image:
            return _resized(image.convert("L"), size)
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"omniglot: {file} cannot be read as an image ({error})") from None


def _resized(image: Image.Image, size: int) -> np.ndarray:
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)  # Pillow's averages when it reduces
    return np.asarray(image)


def _with_rotations(
    images: np.ndarray, labels: np.ndarray, names: list[str]
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    turned = [np.rot90(images, quarter, axes=(1, 2)) for quarter in range(4)]
    further = [f"{name}/rot{90 * quarter}" if quarter else name for quarter in range(4) for name in names]
    return np.concatenate(turned), np.concatenate([labels + q * len(names) for q in range(4)]), further
