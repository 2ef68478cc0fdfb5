"""Builds tlxml_fast._core with CMake and Ninja; everything else about the package is in pyproject.toml."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
PURE = os.environ.get("TLXML_FAST_PURE", "") not in ("", "0")


def need(program: str, *candidates: str | None) -> str:
    """The path of the first candidate found, or one sentence on what is missing."""
    for candidate in candidates:
        if candidate and (path := shutil.which(candidate)):
            return path
    raise SystemExit(
        f"tlxml_fast: no {program} was found, and the compiled kernels need one; install it, "
        "or set TLXML_FAST_PURE=1 to install without them (the slower pure-torch reference then runs)."
    )


class CMakeBuild(build_ext):
    def build_extension(self, ext: Extension) -> None:
        import pybind11

        need("C++ compiler", (os.environ.get("CXX") or "").split(" ")[0], "c++", "g++", "clang++")
        cmake, ninja = need("cmake", "cmake"), need("ninja", "ninja")
        output = Path(self.get_ext_fullpath(ext.name)).resolve().parent
        build = Path(self.build_temp).resolve() / "core"
        # --fresh, and every tool by name: an isolated build's cache points into a deleted environment.
        configure = [
            f"-DCMAKE_MAKE_PROGRAM={ninja}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={output}",
        ]
        subprocess.run([cmake, "--fresh", "-G", "Ninja", "-S", ROOT, "-B", build, *configure], check=True)
        subprocess.run([cmake, "--build", build], check=True)


setup(
    ext_modules=[] if PURE else [Extension("tlxml_fast._core", sources=[])],
    cmdclass={"build_ext": CMakeBuild},
)
