"""What `import tlxml_fast` brings with it, and what it leaves for when it is asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

import tlxml_fast as tlx

HEAVY = (
    "matplotlib",
    "jinja2",
    "sklearn",
    "pandas",
    "xarray",
    "pyarrow",
    "curvlinops",
    "captum",
    "dattri",
    "typer",
    "scipy.stats",
    "torch._dynamo",
)


def test_a_fresh_import_is_light():
    program = f"import sys, tlxml_fast; print(*(name for name in {HEAVY} if name in sys.modules))"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


def test_every_public_name_is_there():
    program = (
        "from tlxml_fast import *; import tlxml_fast; print(*(set(tlxml_fast.__all__) - set(globals())))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
    assert set(tlx.__all__) <= set(dir(tlx))
    with pytest.raises(AttributeError, match="module 'tlxml_fast' has no attribute 'nothing'"):
        tlx.nothing  # noqa: B018
