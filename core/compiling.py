"""How kernels are compiled: by numba, once a machine, without holding up other Python threads.

numba looks for a changed kernel in the kernel's own file only, not in those that it calls. So what is compiled is kept
in a folder of its own for each version of the package and its sources: an upgrade never runs old code.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import tempfile
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import numba

Function = TypeVar("Function", bound=Callable[..., Any])
SOURCES = Path(__file__).parent


def kernel(**options: Any) -> Callable[[Function], Function]:
    """`numba.njit` with these options, kept in the cache folder, and without the GIL."""

    def compiled(function: Function) -> Function:
        config: Any = numba.config
        before, config.CACHE_DIR = config.CACHE_DIR, _FOLDER
        try:
            return numba.njit(cache=bool(_FOLDER), nogil=_CONCURRENT, **options)(function)  # type: ignore[no-any-return]
        finally:
            config.CACHE_DIR = before

    return compiled


def cache_folder() -> str:
    """Where compiled kernels are kept; empty, after a warning, if nothing can be written there."""
    content = hashlib.sha256()
    for path in sorted(SOURCES.rglob("*.py")):
        source = path.read_bytes()
        if b"@kernel(" in source or path.name == "tables.py":  # kernels, and the numbers and tuples that they share
            content.update(source)
    name = f"prototide-{_version()}-{content.hexdigest()[:12]}"
    named = os.environ.get("NUMBA_CACHE_DIR")
    user = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 - Path.home() may raise
    folders = [Path(named)] if named else [SOURCES / "__pycache__", Path(user) / "numba"]
    for folder in folders:
        try:
            (folder / name).mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder / name).close()
        except OSError:
            continue
        return str(folder / name)
    warnings.warn(
        f"cannot write to {' or '.join(map(str, folders))}: prototide compiles its kernels anew in every process, "
        "which takes a minute. Set NUMBA_CACHE_DIR to a folder that can be written to",
        stacklevel=2,
    )
    return ""


def _version() -> str:
    try:
        return version("prototide")
    except PackageNotFoundError:  # a checkout that is not installed, as on a machine that only runs `make gpu`
        return "checkout"


def _concurrent() -> bool:
    """Whether several Python threads may run parallel kernels at once; numba's own pool ends the process then."""
    if numba.config.THREADING_LAYER == "workqueue":  # type: ignore[attr-defined]
        return False
    for pool in ("tbbpool", "omppool"):
        try:
            importlib.import_module(f"numba.np.ufunc.{pool}")
        except ImportError:
            continue
        return True
    return False


_FOLDER, _CONCURRENT = cache_folder(), _concurrent()
