"""Products recorded as CUDA graphs: launches of small tasks take longer than their work, and a graph is one launch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class Replay:
    """A function of tensors of one shape, recorded when this is made and replayed when it is called.

    What the function reads besides must stay where it is: the caller holds it for as long as this.
    """

    def __init__(self, function: Callable[..., Tensor], *inputs: Tensor):
        self.inputs = [x.clone() for x in inputs]
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(inputs[0].device):
            aside = torch.cuda.Stream()
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(
                aside
            ):  # what is compiled, loaded or kept at the first call is not recorded
                function(*self.inputs)
            torch.cuda.current_stream().wait_stream(aside)
            with torch.cuda.graph(self.graph):
                self.result = function(*self.inputs)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The function's value at these."""
        for held, given in zip(self.inputs, inputs, strict=True):
            held.copy_(given)
        self.graph.replay()
        return self.result.clone()
