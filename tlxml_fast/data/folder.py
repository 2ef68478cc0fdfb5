"""Any images on disk, one directory a class: miniImageNet and the like."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ..errors import DataError
from .pool import ImagePool

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
SPLITS = ("train", "val", "test")
CACHED_IMAGES = 1024  # 22 MB at 84×84×3


def folder(
    path: str | os.PathLike, image_size: int = 84, grayscale: bool = False, split: str | None = None
) -> ImagePool:
    """Images from a directory a class, at any depth below it, [N, 3 or 1, image_size, image_size].

    path   holds the class directories; or train, val and test directories that hold them, and then
           `split` says which to take. Hidden files and files without an image's suffix are ignored.

    Images are read when a task needs them: the shorter side is resized to `image_size`, the middle is kept;
    transparency is dropped.
    Raises DataError for a layout that is not one of these, for a class without images and, when its
    task is made, for a file that cannot be read.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise DataError(f"folder: there is no directory {root}")
    if image_size < 1:
        raise DataError(f"folder: image_size is {image_size}; it must be at least 1")
    held = [name for name in SPLITS if any(_directories(root / name))]
    if held and split is None:
        raise DataError(f"folder: {root} is divided into {', '.join(held)}; name one as split")
    if split is not None and split not in held:
        raise DataError(f"folder: {root} has no split {split!r} with class directories in it")
    classes = _directories(root / split if split else root)
    files = [_image_files(directory) for directory in classes]
    if not any(files):
        raise DataError(
            f"folder: {root} has no image files in class directories ({', '.join(sorted(SUFFIXES))})"
        )
    for directory, found in zip(classes, files, strict=True):
        if not found:
            raise DataError(f"folder: class directory {directory} has no image file")
    labels = np.repeat(np.arange(len(classes)), [len(found) for found in files])
    images = FolderImages([file for found in files for file in found], image_size, grayscale)
    return ImagePool(
        images, labels, [directory.name for directory in classes], name=root.name, split=split or "all"
    )


class FolderImages:
    """Image files as an array [N, C, H, W] of uint8 that is read row by row; the latest rows are kept."""

    def __init__(self, files: list[Path], image_size: int, grayscale: bool):
        self.files = files
        self.shape = (len(files), 1 if grayscale else 3, image_size, image_size)
        self._read_cached = lru_cache(CACHED_IMAGES)(self._read)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return np.stack([self._read_cached(int(row)) for row in rows])

    def _read(self, row: int) -> np.ndarray:
        _, channels, height, width = self.shape
        try:
            with Image.open(self.files[row]) as image:
                upright = ImageOps.exif_transpose(_eight_bit(image)).convert("L" if channels == 1 else "RGB")
                fitted = ImageOps.fit(upright, (width, height), Image.Resampling.BILINEAR)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise DataError(f"folder: {self.files[row]} cannot be read as an image ({error})") from None
        return np.asarray(fitted).reshape(height, width, channels).transpose(2, 0, 1)


def _eight_bit(image: Image.Image) -> Image.Image:
    """Pillow's own conversion of deeper images clips them to white."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {image.mode} have no fixed range")
    return image


def _directories(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    return sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _image_files(directory: Path) -> list[Path]:
    return sorted(
        file
        for file in directory.rglob("*")
        if file.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in file.relative_to(directory).parts)
        and file.is_file()
    )
