"""The embedded data set: letters of six scripts, rendered from the fonts that matplotlib ships."""

from __future__ import annotations

import hashlib
import json
import os
import unicodedata
import warnings
import zipfile
from importlib.metadata import version
from itertools import groupby
from pathlib import Path

import numpy as np
import platformdirs
from PIL import Image, ImageDraw, ImageFont, ImageOps, features

from ..errors import DataError
from ..files import replacing
from ..progress import progress_bar
from .pool import ImagePool

RENDERING = 1  # raise it whenever a change below changes a pixel: it is part of the cache's name
SPLITS = ("train", "val", "test", "all")
SCRIPTS = ("armenian", "cyrillic", "georgian", "greek", "lao", "latin")
MIN_FACES = 8
EXAMPLES_PER_FACE = 4
SEED = 20250114

# Symbol, display and fallback fonts: their letters are boxes, copies, or in private encodings.
LEFT_OUT_PREFIXES = ("LastResort", "cm", "STIXNonUni", "STIXSiz")
LEFT_OUT_SUFFIX = "Display"

SUPERSAMPLING = 3
FONT_SIZE = 0.82  # em, as a share of the image; capitals are then about 60% of its height
MARGIN = 0.05  # no ink closer to the border than this share of the image
ROTATION = 8.0  # degrees, either way; the other jitters likewise
SCALE = 0.10
SHEAR = 0.10
SHIFT = 0.06  # share of the image


def glyphs(
    split: str = "train", image_size: int = 28, cache_dir: str | os.PathLike | None = None
) -> ImagePool:
    """Letters of six scripts, white on black, [N, 1, image_size, image_size].

    A class is a letter, its group is its script, a source is a face. An example is a face with a small
    random rotation, scaling, shear and shift. Classes are divided 64/16/20 into train, val and test,
    within each script. No two classes share a bitmap in any face.

    The first call renders and keeps the result under `cache_dir`, else $TLXML_CACHE, else the user's
    cache directory. Raises DataError for an unknown split or an image size below 8.
    """
    if split not in SPLITS:
        raise DataError(f"glyphs: split {split!r} is none of {', '.join(SPLITS)}")
    if image_size < 8:
        raise DataError(f"glyphs: image_size {image_size} is below 8")
    data = _cached(image_size, Path(cache_dir or os.environ.get("TLXML_CACHE") or _user_cache()))
    letters, labels = np.unique(data["letters"], return_inverse=True)
    names = [unicodedata.name(chr(letter)).lower() for letter in letters]
    scripts = [_script(int(letter)) for letter in letters]
    pool = ImagePool(
        data["images"][:, None], labels, names, scripts, data["faces"], name="glyphs", within_groups=True
    )
    return pool if split == "all" else pool.select(_members(scripts, split), split)


def _members(scripts: list[str], split: str) -> list[int]:
    """The classes of one split, in order: a fixed random 64/16/20 division of each script."""
    members: list[int] = []
    for script in sorted(set(scripts)):
        order = [i for i, other in enumerate(scripts) if other == script]
        np.random.default_rng(SEED).shuffle(order)
        test, val = round(0.20 * len(order)), round(0.16 * len(order))
        parts = {"test": order[:test], "val": order[test : test + val], "train": order[test + val :]}
        members += parts[split]
    return sorted(members)


# ---- which letters, in which faces ----------------------------------------------------------------


def _faces() -> list[Path]:
    import matplotlib  # here, because importing it takes a noticeable part of a second

    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    return [
        path
        for path in sorted(folder.glob("*.ttf"))
        if not path.stem.startswith(LEFT_OUT_PREFIXES) and not path.stem.endswith(LEFT_OUT_SUFFIX)
    ]


def _script(letter: int) -> str:
    return unicodedata.name(chr(letter), "").partition(" ")[0].lower()


def _is_class(letter: int) -> bool:
    """A letter of the six scripts that is not another letter with an accent or in another form."""
    char = chr(letter)
    return (
        unicodedata.category(char).startswith("L")
        and not unicodedata.decomposition(char)
        and _script(letter) in SCRIPTS
    )


def _coverage(faces: list[Path]) -> dict[int, list[int]]:
    """For each letter that at least MIN_FACES faces have, those faces; letters in ascending order."""
    from matplotlib import ft2font

    having: dict[int, list[int]] = {}
    for i, path in enumerate(faces):
        for letter in ft2font.FT2Font(str(path)).get_charmap():
            if _is_class(letter):
                having.setdefault(letter, []).append(i)
    return {letter: found for letter, found in sorted(having.items()) if len(found) >= MIN_FACES}


def _without_twins(masks: dict[tuple[int, int], Image.Image]) -> dict[tuple[int, int], Image.Image]:
    """Leaves out every letter that looks the same, in any face, as a kept letter of lower code point.

    Latin A, Greek Α and Cyrillic А are one class: told apart, they would be labelled at random.
    """
    seen: set[tuple[int, tuple[int, int], bytes]] = set()
    kept: dict[tuple[int, int], Image.Image] = {}
    for _, items in groupby(masks.items(), key=lambda item: item[0][0]):  # masks are in order of letter
        own = dict(items)
        looks = {(face, mask.size, mask.tobytes()) for (_, face), mask in own.items()}
        if looks.isdisjoint(seen):
            kept |= own
            seen |= looks
    return kept


# ---- rendering ------------------------------------------------------------------------------------


def _render(image_size: int) -> dict[str, np.ndarray]:
    """images [N, H, H] uint8, letters [N] code points, faces [N]."""
    faces = _faces()
    canvas = SUPERSAMPLING * image_size
    size = round(FONT_SIZE * canvas)
    # The basic layout engine: the other one is not in every build of Pillow.
    fonts = [ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC) for path in faces]
    masks = {
        (letter, face): _ink(fonts[face], chr(letter))
        for letter, covering in _coverage(faces).items()
        for face in covering
    }
    masks = _without_twins(masks)
    images = np.empty((len(masks), EXAMPLES_PER_FACE, image_size, image_size), np.uint8)
    with progress_bar("Rendering glyphs (first use only)", len(masks)) as advance:
        for out, ((letter, face), mask) in zip(images, masks.items(), strict=True):
            # Seeded by name, so that an example does not depend on which other faces and letters there are.
            rng = np.random.default_rng([SEED, letter, *faces[face].stem.encode()])
            for example in out:
                example[:] = _jittered(mask, canvas, rng).reduce(SUPERSAMPLING)
            advance()
    letters, chosen = np.array(list(masks)).T.repeat(EXAMPLES_PER_FACE, axis=1)
    return {
        "images": images.reshape(-1, image_size, image_size),
        "letters": letters.astype(np.int32),
        "faces": chosen.astype(np.int16),
    }


def _ink(font: ImageFont.FreeTypeFont, char: str) -> Image.Image:
    """The letter cropped to its ink, with a black border of two pixels to interpolate into."""
    box = font.getbbox(char)
    canvas = Image.new("L", (box[2] - box[0], box[3] - box[1]))
    ImageDraw.Draw(canvas).text((-box[0], -box[1]), char, fill=255, font=font)
    return ImageOps.expand(canvas.crop(canvas.getbbox()), border=2)


def _jittered(mask: Image.Image, canvas: int, rng: np.random.Generator) -> Image.Image:
    """The letter centred on a square canvas, turned, scaled, sheared and shifted a little, never clipped."""
    angle = np.deg2rad(rng.uniform(-ROTATION, ROTATION))
    scale = 1 + rng.uniform(-SCALE, SCALE)
    shear = rng.uniform(-SHEAR, SHEAR)
    shift = rng.uniform(-SHIFT, SHIFT, 2) * canvas
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    forward = scale * turn @ np.array([[1, shear], [0, 1]])

    room = (0.5 - MARGIN) * canvas
    size = np.array(mask.size)
    extent = np.abs(forward) @ size / 2
    forward *= min(1.0, room / extent.max())
    extent = np.abs(forward) @ size / 2
    shift = np.clip(shift, extent - room, room - extent)

    back = np.linalg.inv(forward)  # Pillow maps output to input
    origin = size / 2 - back @ (canvas / 2 + shift)
    affine = (*back[0], origin[0], *back[1], origin[1])
    return mask.transform((canvas, canvas), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)


# ---- cache ----------------------------------------------------------------------------------------


def _user_cache() -> str:
    return platformdirs.user_cache_dir("tlxml_fast")


def _cache_name(image_size: int) -> str:
    """A file name with a hash of all that determines the content."""
    determinants = {
        "rendering": RENDERING,
        "image_size": image_size,
        "jitter": [EXAMPLES_PER_FACE, SEED, ROTATION, SCALE, SHEAR, SHIFT],
        "layout": [SUPERSAMPLING, FONT_SIZE, MARGIN, MIN_FACES, SCRIPTS],
        "faces": [(path.name, path.stat().st_size) for path in _faces()],
        "versions": [version("matplotlib"), version("pillow"), features.version("freetype2")],
        "unicode": unicodedata.unidata_version,
    }
    digest = hashlib.sha256(json.dumps(determinants).encode()).hexdigest()
    return f"glyphs-{image_size}-{digest[:16]}.npz"


def _cached(image_size: int, folder: Path) -> dict[str, np.ndarray]:
    path = folder / _cache_name(image_size)
    if path.exists():
        try:
            return _read(path, image_size)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            warnings.warn(f"the glyph cache {path} is damaged ({error}); rendering again", stacklevel=3)
    data = _render(image_size)
    try:
        _write(path, data)
    except OSError as error:
        warnings.warn(f"the glyphs cannot be kept in {folder} ({error})", stacklevel=3)
    return data


def _read(path: Path, image_size: int) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as stored:
        data = {key: stored[key] for key in ("images", "letters", "faces")}
    n = len(data["images"])
    if data["images"].shape != (n, image_size, image_size) or not n == len(data["letters"]) == len(
        data["faces"]
    ):
        raise ValueError("its arrays do not fit together")
    return data


def _write(path: Path, data: dict[str, np.ndarray]) -> None:
    """All or nothing: an interrupted run leaves no half-written file, two at once do not meet."""
    with replacing(path) as part, part.open("wb") as file:
        np.savez_compressed(file, **data)
