"""What is installed is what there is."""

from __future__ import annotations

import shutil
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


@pytest.mark.slow
def test_a_source_distribution_has_what_the_build_reads(tmp_path):
    import subprocess
    import tarfile

    for part in (
        "pyproject.toml",
        "setup.py",
        "MANIFEST.in",
        "CMakeLists.txt",
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
    ):
        shutil.copy(ROOT / part, tmp_path)
    for part in ("tlxml_fast", "kernels", "benchmarks", "csrc"):
        shutil.copytree(
            ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("*.so", "__pycache__", "results")
        )
    make = "from setuptools import build_meta; build_meta.build_sdist('dist')"
    subprocess.run([sys.executable, "-c", make], cwd=tmp_path, check=True, capture_output=True)
    (made,) = (tmp_path / "dist").glob("*.tar.gz")
    with tarfile.open(made) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {str(path.relative_to(tmp_path)) for path in (tmp_path / "csrc").rglob("*") if path.is_file()}
    wanted |= {
        "CMakeLists.txt",
        "setup.py",
        "kernels/topk.py",
        "tlxml_fast/py.typed",
        "tlxml_fast/report/report.css",
    }
    assert not wanted - names
