"""Files that are either whole or not there."""

from .pickled import is_pickle
from .tensors import read_tensors, write_tensors
from .text import read_json, understanding, write_json, write_text
from .whole import is_part, make_directories, replacing, writing

__all__ = [
    "is_part",
    "is_pickle",
    "make_directories",
    "read_json",
    "read_tensors",
    "replacing",
    "understanding",
    "write_json",
    "write_tensors",
    "write_text",
    "writing",
]
