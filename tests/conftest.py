"""The glyphs are rendered once for all tests, into a cache of their own. Triton's interpreter, if used, is strict."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
import torch

from tlxml_fast.data import ImagePool, glyphs

if os.environ.get("TRITON_INTERPRET") == "1":
    import strict_interpreter

    strict_interpreter.install()


@pytest.fixture(scope="session")
def glyph_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("glyphs")


@pytest.fixture(scope="session", autouse=True)
def _no_user_cache(glyph_cache: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TLXML_CACHE", str(glyph_cache))
        yield


@pytest.fixture(scope="session")
def all_glyphs(glyph_cache: Path) -> ImagePool:
    return glyphs("all", cache_dir=glyph_cache)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Where all tensors are tiny, torch's threads would mostly wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def few_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rendering of Lao alone, where a test must render again."""
    monkeypatch.setattr(import_module("tlxml_fast.data.glyphs"), "SCRIPTS", ("lao",))
