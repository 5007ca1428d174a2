"""Where checkpoints are kept: a folder, or an object store by URL (``s3://``, ``gs://``, ``az://``) through fsspec.

A file is written whole or not at all: in a folder under a temporary name first, in an object store by one put.
"""

from __future__ import annotations

import contextlib
import logging
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from prototide.service import checkpoints
from prototide.service.checkpoints import Checkpoint, InvalidCheckpointError
from prototide.service.errors import PersonMustAct, RestartMayHelp, ServiceError

log = logging.getLogger(__name__)

_URL = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.-]*://")
_EXTRAS = {"s3": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az"}  # scheme -> extra of the package


class Store(Protocol):
    """Checkpoints by name; whatever cannot be reached raises OSError, or what its library does."""

    def names(self) -> list[str]:
        """Newest first."""

    def size(self, name: str) -> int:
        """Bytes."""

    def read(self, name: str) -> Checkpoint:
        """Raises InvalidCheckpointError for a file that is not a whole checkpoint."""

    def write(self, checkpoint: Checkpoint, writer: str) -> int:
        """Bytes written; `writer` is unique to the process."""

    def remove(self, name: str) -> None:
        """It need not exist."""

    def rename(self, name: str, new: str) -> None:
        """To a name that `names` does not tell."""

    def clean(self, instance: str) -> None:
        """Removes what earlier processes of the instance left half-written."""


def store_of(uri: str) -> Store:
    """What `checkpoint.uri` names; raises PersonMustAct for what cannot be used."""
    if not _URL.match(uri) or uri.startswith("file://"):
        return FolderStore(Path(uri.removeprefix("file://")))
    scheme = uri.partition("://")[0]
    if scheme not in _EXTRAS:
        raise PersonMustAct(
            f"checkpoint.uri = {scheme}://...: there is no such store", f"use a folder, or one of {', '.join(_EXTRAS)}"
        )
    try:
        from fsspec.core import url_to_fs

        files, root = url_to_fs(uri, use_listings_cache=False)
    except ImportError as missing:
        raise PersonMustAct(
            f"checkpoint.uri = {scheme}://... needs the package {missing.name}",
            f"pip install 'prototide[{_EXTRAS[scheme]}]'",
        ) from None
    except (ValueError, OSError) as refused:
        raise PersonMustAct(f"checkpoint.uri = {scheme}://...: {refused}", "correct the URL") from None
    return ObjectStore(files, root)


@contextlib.contextmanager
def reachable(uri: str) -> Iterator[None]:
    """Whatever the store's library raises inside becomes RestartMayHelp."""
    try:
        yield
    except (ServiceError, InvalidCheckpointError):
        raise
    except Exception as failed:
        raise RestartMayHelp(
            f"the checkpoints at {uri.rpartition('@')[2]} cannot be read: {type(failed).__name__}: {failed}",
            "see that the store is up and the service may read it, then start again",
        ) from None


class FolderStore:
    """A local folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self) -> list[str]:
        """Newest first."""
        return [path.name for path in checkpoints.paths(self.folder)]

    def size(self, name: str) -> int:
        """Bytes."""
        return (self.folder / name).stat().st_size

    def read(self, name: str) -> Checkpoint:
        """Raises InvalidCheckpointError for a file that is not a whole checkpoint."""
        return checkpoints.read(self.folder / name)

    def write(self, checkpoint: Checkpoint, writer: str) -> int:
        """Under a temporary name, synced, renamed."""
        return checkpoints.write(self.folder, checkpoint, writer).stat().st_size

    def remove(self, name: str) -> None:
        """It need not exist."""
        (self.folder / name).unlink(missing_ok=True)

    def rename(self, name: str, new: str) -> None:
        """Atomic."""
        (self.folder / name).rename(self.folder / new)

    def clean(self, instance: str) -> None:
        """Removes what earlier processes of the instance left half-written."""
        checkpoints.remove_partial(self.folder, instance)


class ObjectStore:
    """A bucket's folder; files go through a temporary local one."""

    def __init__(self, files: Any, root: str) -> None:
        """`files`: a file system of fsspec."""
        self._files = files
        self._root = root.rstrip("/")

    def names(self) -> list[str]:
        """Newest first."""
        try:
            found = self._files.ls(self._root, detail=False, refresh=True)
        except FileNotFoundError:
            return []
        return sorted((name for path in found if checkpoints.is_name(name := path.rpartition("/")[2])), reverse=True)

    def size(self, name: str) -> int:
        """Bytes."""
        return int(self._files.size(self._path(name)))

    def read(self, name: str) -> Checkpoint:
        """Raises InvalidCheckpointError for a file that is not a whole checkpoint."""
        with tempfile.TemporaryDirectory(prefix="prototide-") as folder:
            local = Path(folder, name)
            try:
                self._files.get_file(self._path(name), str(local))
            except FileNotFoundError:
                raise InvalidCheckpointError("it is gone") from None
            return checkpoints.read(local)

    def write(self, checkpoint: Checkpoint, writer: str) -> int:
        """One put: the store shows the whole object or none."""
        with tempfile.TemporaryDirectory(prefix="prototide-") as folder:
            local = checkpoints.write(Path(folder), checkpoint, writer)
            self._files.put_file(str(local), self._path(local.name))
            return local.stat().st_size

    def remove(self, name: str) -> None:
        """It need not exist."""
        with contextlib.suppress(FileNotFoundError):
            self._files.rm_file(self._path(name))

    def rename(self, name: str, new: str) -> None:
        """Copied, then removed."""
        self._files.mv(self._path(name), self._path(new))

    def clean(self, instance: str) -> None:
        """Nothing is ever half-written."""

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


def prune(store: Store, keep: int, newest_step: int) -> list[str]:
    """Removes all but the newest `keep` up to `newest_step`; later ones, if any, were skipped at start. What went."""
    ours = [name for name in store.names() if checkpoints.step_of(name) <= newest_step]
    for name in ours[keep:]:
        store.remove(name)
    return ours[keep:]


def set_aside(store: Store, prefix: str) -> list[str]:
    """Renames every checkpoint, so that none is found any more; the new names."""
    new_names = []
    for name in store.names():
        new_names.append(f"{prefix}-{name}")
        store.rename(name, new_names[-1])
    return new_names
