"""Tensors of shards of tasks on a disk: a run that is killed goes on from there, bit for bit.

    DIR/manifest.json                       what the store was made with; it is refused for anything else
    DIR/tasks.safetensors                   the ids of its tasks, in order
    DIR/shards/KIND/00000012.safetensors    the tensors of one kind of the tasks of shard 12
    DIR/whole/NAME.safetensors              a result that belongs to no shard
    DIR/.lock                               held by the one process at work

Every file is whole or not there (`tlxml_fast.files`), tells what it is, and is checked before it is used.
"""

from .kept import InStore
from .manifest import digest
from .store import Shard, Store
from .verify import Finding, Verification, describe, in_words, verify

__all__ = ["Finding", "InStore", "Shard", "Store", "Verification", "describe", "digest", "in_words", "verify"]
