"""What is installed is what there is."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib is of Python 3.11")
def test_every_package_is_named():
    import tomllib

    setup = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in ROOT.glob("tlxml_fast/**/__init__.py")}
    mapped = {"tlxml_fast.benchmarks", "tlxml_fast.kernels"}
    assert sorted(found | mapped) == sorted(setup["packages"])
