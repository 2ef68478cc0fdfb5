"""Tasks in pinned memory of the host: while a device works on a block, the next is copied on a stream of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..learners import Episode
from .batch import Batch


class Feed:
    """Blocks of tasks that a device does not hold: two of them at a time, the one asked for and the one that follows.

    After the last block the first follows, since products sweep tasks again and again. Labels are held, as small as
    they are: what has been checked of them stays so.
    """

    def __init__(self, episodes: Sequence[Episode], device: torch.device):
        self.support_x, self.query_x = (
            torch.stack(images).pin_memory()
            for images in ([e.support_x for e in episodes], [e.query_x for e in episodes])
        )
        self.device, self.aside = device, torch.cuda.Stream(device)
        self._all_labels = torch.stack([e.support_y for e in episodes]).to(device)
        self._labels: dict[tuple[int, int], Tensor] = {}
        self._size = 0  # of blocks but the last, which may be smaller
        self._under_way: tuple[slice, list[Tensor], torch.cuda.Event] | None = None

    def __call__(self, block: slice) -> Batch:
        """The tasks of a block, on the device; the block after it is under way."""
        if self._under_way is None or self._under_way[0] != block:
            self.release()
            self._start(block)
        _, images, copied = self._under_way
        current = torch.cuda.current_stream(self.device)
        current.wait_event(copied)
        for x in images:
            x.record_stream(current)  # or its memory might be another copy's while kernels still read it
        self.release()
        T = len(self._all_labels)
        if block.stop < T or block.start == 0:
            self._size = block.stop - block.start
        first = block.stop if block.stop < T else 0
        after = slice(first, min(T, first + (self._size or T)))
        if after != block:
            self._start(after)
        labels = self._labels.setdefault((block.start, block.stop), self._all_labels[block])
        return Batch.of(images[0], labels, images[1])

    def release(self) -> None:
        """The block that is under way."""
        self._under_way = None

    def _start(self, block: slice) -> None:
        with torch.cuda.stream(self.aside):
            images = [x[block].to(self.device, non_blocking=True) for x in (self.support_x, self.query_x)]
            self._under_way = (block, images, self.aside.record_event())
