"""Backends by name."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points

from ..errors import BackendError
from .protocol import VERSION, Backend, Capabilities, missing

GROUP = "tlxml.backends"


def names() -> tuple[str, ...]:
    """Those that installed packages bring."""
    return tuple(sorted({found.name for found in entry_points(group=GROUP)}))


def get(name: str) -> Backend:
    """The backend of an entry point's name, or of "module:object".

    Raises BackendError if there is none, if it cannot be imported, or if it speaks another version of the protocol.
    """
    found = {point.name: point for point in entry_points(group=GROUP)}
    if name in found:
        backend = _loaded(name, found[name].load)
    elif ":" in name:
        module, _, path = name.partition(":")
        backend = _loaded(name, lambda: _attribute(import_module(module), path))
    else:
        raise BackendError(
            f"no installed package brings a backend called {name!r}; there are {', '.join(sorted(found)) or 'none'}"
        )
    if isinstance(backend, type):
        raise BackendError(f"{name} is a class, {backend.__name__}; a backend is an instance")
    if lacks := missing(backend, Backend):
        raise BackendError(f"{name} is no backend: it has no {', '.join(lacks)}")
    able = backend.capabilities()
    if not isinstance(able, Capabilities):
        raise BackendError(
            f"{name} is no backend: capabilities() gives a {type(able).__name__}, not a Capabilities"
        )
    spoken = able.version
    if spoken != VERSION:
        raise BackendError(
            f"the backend {name} speaks version {spoken} of the protocol, and this is version {VERSION}"
        )
    return backend


def _attribute(owner: object, path: str) -> object:
    for part in path.split("."):
        owner = getattr(owner, part)
    return owner


def _loaded(name: str, load: object) -> object:
    try:
        return load()
    except (ImportError, AttributeError) as error:
        raise BackendError(f"the backend {name} cannot be loaded: {error}") from None
