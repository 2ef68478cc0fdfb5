"""Random projections that keep inner products: gradients are stored in d numbers each instead of q.

One class a file; each draws its matrix from a counter-based generator, so that it is nowhere in memory and the same on
every device, in every process and for every batching of rows.
"""

from .base import Compression
from .rademacher import Rademacher
from .sjlt import SJLT
from .srht import SRHT

__all__ = ["SJLT", "SRHT", "Compression", "Rademacher"]
