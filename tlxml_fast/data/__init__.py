"""Data sets as pools of images by class, from which tasks are drawn, and changes made to tasks.

tasks = glyphs(split="train").sample(1024, ways=5, shots=5, queries=15, seed=0)
"""

from .digits import digits
from .folder import folder
from .glyphs import glyphs
from .omniglot import omniglot
from .pool import ImagePool
from .transforms import darken, noise, permute_classes, rotate
from .words import FeaturePool, VisualWords

__all__ = [
    "FeaturePool",
    "ImagePool",
    "VisualWords",
    "darken",
    "digits",
    "folder",
    "glyphs",
    "noise",
    "omniglot",
    "permute_classes",
    "rotate",
]
