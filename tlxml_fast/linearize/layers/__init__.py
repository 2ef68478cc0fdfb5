"""The layers a plan is made of, one kind a file; each with its forward, JVP, VJP and the JVP of its VJP."""

from .base import Cotangents, Layer, Named
from .block import ConvBlock
from .convolution import Convolution, convolution
from .direct import DirectConvolution
from .group_norm import GroupNorm
from .linear import Linear
from .norm_act_pool import Norm, NormActPool
from .spatial import Averages, Flatten

__all__ = [
    "Averages",
    "ConvBlock",
    "Convolution",
    "Cotangents",
    "DirectConvolution",
    "Flatten",
    "GroupNorm",
    "Layer",
    "Linear",
    "Named",
    "Norm",
    "NormActPool",
    "convolution",
]
