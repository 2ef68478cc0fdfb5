"""Whether a file is a pickle, which nothing here loads: unpickling executes what the file says."""

from __future__ import annotations

import os
import zipfile


def is_pickle(path: str | os.PathLike[str]) -> bool:
    """Whether a file that is nothing else was written by `torch.save` or `pickle`; it is not unpickled.

    By its first bytes, or the names in it where it is a zip file, as `torch.save` writes. False if it cannot be read.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return any(name.endswith("data.pkl") for name in archive.namelist())
        with open(path, "rb") as file:
            start = file.read(3)
    except (OSError, zipfile.BadZipFile):
        return False
    # the opcode PROTO, a protocol, and an opcode, where the length of a safetensors index has a zero
    return len(start) == 3 and start[0] == 0x80 and 2 <= start[1] <= 5 and start[2] != 0
