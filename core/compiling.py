"""How kernels are compiled: by numba, once a machine, without holding up other Python threads.

numba looks for a changed kernel in the kernel's own file only, not in those that it calls. So what is compiled is kept
in a folder of its own for each version of the package and its sources: an upgrade never runs old code.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import re
import shutil
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import numba

Function = TypeVar("Function", bound=Callable[..., Any])
SOURCES = Path(__file__).parent
MARKS = b"@kernel(", b"@intrinsic"  # of files that are compiled; `tables` has the numbers and tuples that they share
CACHE_NAME = re.compile(r"prototide-.+-[0-9a-f]{12}")
UNUSED_DAYS = 30  # after which what was compiled for other sources is deleted


def kernel(**options: Any) -> Callable[[Function], Function]:
    """`numba.njit` with these options, kept in the cache folder, and without the GIL."""

    def compiled(function: Function) -> Function:
        config: Any = numba.config
        before, config.CACHE_DIR = config.CACHE_DIR, _FOLDER
        try:
            return numba.njit(cache=bool(_FOLDER), nogil=True, **options)(function)  # type: ignore[no-any-return]
        finally:
            config.CACHE_DIR = before

    return compiled


def cache_folder() -> str:
    """Where compiled kernels are kept; empty, after a warning, if nothing can be written there."""
    content = hashlib.sha256()
    for path in sorted(SOURCES.rglob("*.py")):
        source = path.read_bytes()
        if path.name == "tables.py" or any(mark in source for mark in MARKS):
            content.update(source)
    name = f"prototide-{_version()}-{content.hexdigest()[:12]}"  # CACHE_NAME
    named = os.environ.get("NUMBA_CACHE_DIR")
    user = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 - Path.home() may raise
    folders = [Path(named)] if named else [SOURCES / "__pycache__"]
    if not named and os.path.isabs(user):  # noqa: PTH117 - "~" stays where nobody has a home
        folders.append(Path(user) / "numba")
    for folder in folders:
        try:
            (folder / name).mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder / name).close()
        except OSError:
            continue
        with contextlib.suppress(OSError):  # some network drives keep no times
            os.utime(folder / name)  # used today
            _delete_unused(folder)
        return str(folder / name)
    warnings.warn(
        f"cannot write to {' or '.join(map(str, folders))}: prototide compiles its kernels anew in every process, "
        "which takes a minute. Set NUMBA_CACHE_DIR to a folder that can be written to",
        stacklevel=2,
    )
    return ""


def _delete_unused(folder: Path) -> None:
    """``folder`` may be anyone's: only what has such a name is deleted."""
    for other in folder.iterdir():
        with contextlib.suppress(OSError):  # somebody else deletes it, or it is no folder
            named = CACHE_NAME.fullmatch(other.name)
            if named and time.time() - other.stat().st_mtime > UNUSED_DAYS * 86_400:
                shutil.rmtree(other)


def _version() -> str:
    try:
        return version("prototide")
    except PackageNotFoundError:  # a checkout that is not installed, as on a machine that only runs `make gpu`
        return "checkout"


def _concurrent() -> bool:
    """Whether several Python threads may run parallel kernels at once; numba's own pool ends the process then.

    numba asks for its pools in this order, too: see "The Threading Layers" in its manual.
    """
    config: Any = numba.config
    safe = ["tbb", "workqueue"] if sys.platform == "linux" else ["tbb", "omp", "workqueue"]
    orders = {
        "default": config.THREADING_LAYER_PRIORITY,
        "safe": ["tbb"],
        "threadsafe": ["tbb", "omp"],
        "forksafe": safe,
    }
    for layer in orders.get(config.THREADING_LAYER, [config.THREADING_LAYER]):
        if layer == "workqueue":
            return False
        try:
            importlib.import_module(f"numba.np.ufunc.{layer}pool")
        except ImportError:
            continue
        return True
    return False


def model_lock() -> AbstractContextManager[Any]:
    """One for each model, or one for all where only one thread may run kernels; the same thread may take it twice."""
    return threading.RLock() if _CONCURRENT else _ONLY


_FOLDER, _CONCURRENT, _ONLY = cache_folder(), _concurrent(), threading.RLock()
