"""The images of a task as small pictures: one grid per set, a row a class."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps
from PIL import Image
from torch import Tensor

from ..task import Task
from .text import plural

GAP = 1  # pixels between images
GAP_COLOUR = 128  # a middle grey shows on light and on dark
FEATURES_SHOWN = 256  # columns of a heat strip; longer vectors are averaged down to it


@dataclass(frozen=True)
class Detail:
    """How much of a task is kept: pixels of an image's side, images a class in each set, classes.

    Images smaller than `shown` CSS pixels are enlarged towards it, by whole numbers.
    """

    side: int
    support: int
    query: int
    ways: int = 10
    shown: int = 28


class Picture(NamedTuple):
    """A data URI, the size to show it at, and what to read to those who cannot see it."""

    uri: str
    width: int
    height: int
    alt: str


class TaskPictures(NamedTuple):
    """The two sets of a task."""

    support: Picture
    query: Picture

    @property
    def size(self) -> int:
        """Characters in the two data URIs."""
        return len(self.support.uri) + len(self.query.uri)


def is_image(features: tuple[int, ...]) -> bool:
    """[H, W] and [C, H, W] are images; vectors, scalars and everything else are heat strips."""
    return len(features) in (2, 3) and min(features[-2:]) > 1


def task_pictures(task: Task, detail: Detail) -> TaskPictures:
    """Both sets of a task, on one brightness scale."""
    low, high = _range(task)
    draw = _image_grid if is_image(task.shape.features) else _feature_strip
    pictures = []
    for what, x, y, most in (
        ("Support set", task.support_x, task.support_y, detail.support),
        ("Queries", task.query_x, task.query_y, detail.query),
    ):
        rows, classes = _rows(task, y, len(x), most, detail.ways)
        levels = np.clip((_array(x) - low) / (high - low or 1), 0, 1)
        shown = plural(sum(map(len, rows)), "example")
        by_class = f", a row for each of {plural(len(rows), 'class', 'classes')}" if classes else ""
        alt = f"{what} of {task.label}: {shown} of {len(x):,}{by_class}"
        pictures.append(Picture(*draw(levels, rows, detail), alt))
    return TaskPictures(*pictures)


def _range(task: Task) -> tuple[float, float]:
    """[0, 1] where the values lie in it; otherwise the least and greatest value of the task."""
    sets = [_array(x) for x in (task.support_x, task.query_x)]
    low, high = float(min(x.min() for x in sets)), float(max(x.max() for x in sets))
    return (0.0, 1.0) if low >= 0 and high <= 1 and is_image(task.shape.features) else (low, high)


def _array(x: Tensor) -> np.ndarray:
    """numpy from here on: starting torch's threads for a hundred small images costs more than the work."""
    return x.detach().cpu().float().numpy()


def _rows(task: Task, y: Tensor | None, count: int, most: int, ways: int) -> tuple[list[list[int]], bool]:
    """Which examples stand in which row: a class a row, or as they come where no class is known."""
    if y is None or task.regression:
        shown = range(min(count, most * min(5, ways)))
        return [list(shown[start : start + most]) for start in range(0, len(shown), most)], False
    labels = y.cpu().numpy()
    # a class without queries keeps its row, so that rows of the two sets agree
    return [np.flatnonzero(labels == c)[:most].tolist() for c in range(min(task.ways, ways))], True


def _image_grid(x: np.ndarray, rows: list[list[int]], detail: Detail) -> tuple[str, int, int]:
    """Images [n, H, W] or [n, C, H, W] in [0, 1] as one PNG (gray) or JPEG (colour)."""
    if x.ndim == 4:  # 3 channels are colours, one is gray, any other number is averaged
        x = x.transpose(0, 2, 3, 1) if x.shape[1] == 3 else x.mean(1)
    colour = x.ndim == 4
    cells = {index: _shrunk(x[index], detail.side) for row in rows for index in row}
    height, width = _shrunk(x[0], detail.side).shape[:2]
    columns = max(1, *map(len, rows))  # one, empty, where the queries are all of classes not shown
    canvas = np.full((len(rows) * (height + GAP) - GAP, columns * (width + GAP) - GAP), GAP_COLOUR, np.uint8)
    canvas = np.repeat(canvas[..., None], 3, -1) if colour else canvas
    for r, row in enumerate(rows):
        for c, index in enumerate(row):
            top, left = r * (height + GAP), c * (width + GAP)
            canvas[top : top + height, left : left + width] = cells[index]
    scale = max(1, round(detail.shown / max(height, width)))
    return _uri(canvas, photo=colour), canvas.shape[1] * scale, canvas.shape[0] * scale


def _shrunk(image: np.ndarray, side: int) -> np.ndarray:
    """An image in [0, 1] as bytes, no side longer than `side` pixels."""
    picture = Image.fromarray(np.round(image * 255).astype(np.uint8))
    if max(picture.size) > side:
        factor = side / max(picture.size)
        picture = picture.resize([max(1, round(s * factor)) for s in picture.size], Image.Resampling.BOX)
    return np.asarray(picture)


def _feature_strip(x: np.ndarray, rows: list[list[int]], detail: Detail) -> tuple[str, int, int]:
    """Feature vectors in [0, 1], a line of colours for each example, a gap between classes."""
    x = x.reshape(len(x), -1)
    if x.shape[1] > FEATURES_SHOWN:
        line = Image.fromarray(x.astype(np.float32)).resize((FEATURES_SHOWN, len(x)), Image.Resampling.BOX)
        x = np.asarray(line)
    colours = np.round(colormaps["cividis"](np.clip(x, 0, 1))[..., :3] * 255).astype(np.uint8)
    # enlarged in the picture itself: a line need not be as high as a feature is wide, and repeats are free
    wide, high = np.clip(round(3.5 * detail.shown / x.shape[1]), 1, 24), max(2, detail.shown // 9)
    colours = colours.repeat(wide, 1)
    gap = np.full((GAP, colours.shape[1], 3), GAP_COLOUR, np.uint8)
    # a class without queries is a line of gap colour
    lines = [part for row in rows for part in (colours[row].repeat(high, 0) if row else gap, gap)][:-1]
    canvas = np.concatenate(lines)
    return _uri(canvas, photo=False), canvas.shape[1], canvas.shape[0]


def _uri(canvas: np.ndarray, photo: bool) -> str:
    """The smallest encoding that does it justice: as PNG, colour photographs are ten times as large."""
    buffer = io.BytesIO()
    if photo:
        Image.fromarray(canvas).save(buffer, "JPEG", quality=80, optimize=True)
    elif canvas.ndim == 2:
        # 16 levels of gray, four bits a pixel: glyphs and digits look the same at a third of the size
        picture = Image.fromarray(np.round(canvas / 17).astype(np.uint8))
        picture.putpalette([level for gray in range(0, 256, 17) for level in (gray, gray, gray)])
        picture.save(buffer, "PNG", optimize=True, bits=4)
    else:
        Image.fromarray(canvas).save(buffer, "PNG", optimize=True)
    kind = "jpeg" if photo else "png"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
