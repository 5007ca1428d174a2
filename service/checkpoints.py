"""Checkpoints: one immutable file each, ``<step>.safetensors`` in a folder.

A file holds the model's arrays, JSON metadata (positions, fingerprint, ...), and a SHA-256 over all of it, its own 64
digits read as zeros: a cut, flipped or half-written file is never loaded. Written beside its final name, synced,
renamed, the folder synced.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import safetensors
from numpy.typing import NDArray

from prototide.service import failpoints

FORMAT = 2
_NAME = re.compile(r"^(\d{20})\.safetensors$")
_DIGEST_KEY = b'"sha256":"'  # nowhere else in the header: quotes inside its strings are escaped
_NO_DIGEST = b"0" * 64
_HEADER_BYTES = 8  # of the header's length, little-endian
_BLOCK_BYTES = 2**20
# NumPy's name of a type -> the format's.
_DTYPES = {
    "bool": "BOOL",
    **{f"int{bits}": f"I{bits}" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"U{bits}" for bits in (8, 16, 32, 64)},
    **{f"float{bits}": f"F{bits}" for bits in (16, 32, 64)},
}


Positions = Mapping[str, Mapping[int, int]]  # topic -> partition -> offset of the first record not seen


class InvalidCheckpointError(Exception):
    """The file is not a whole checkpoint; the message says why."""


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """A model after `step` steps, and where it is in the stream."""

    step: int
    trained: int  # how many of them it learned
    positions: Positions
    arrays: Mapping[str, NDArray[Any]]
    model: Mapping[str, Any]  # the classifier's metadata
    fingerprint: Mapping[str, Any]  # setting -> value, of those that change the model
    topic_ids: Mapping[str, str]
    model_id: str = ""  # of the journal's genesis; empty where there is no journal
    journal: int | None = 0  # offset behind the step's journal record; None while that is not committed


class Snapshot(NamedTuple):
    """A checkpoint to be: a copy of the model, which nothing changes any more, and where it is in the stream."""

    model: Any
    place: Checkpoint  # without arrays

    def collected(self) -> Checkpoint:
        """What is written; takes a while."""
        arrays, described = self.model.state()
        return replace(self.place, arrays=arrays, model=described)


def write(folder: Path, checkpoint: Checkpoint, writer: str) -> Path:
    """Writes the file of `checkpoint.step`, whole or not at all; `writer` is unique to the process. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"{checkpoint.step:020d}.safetensors"
    partial = _partial(folder, checkpoint.step, writer)
    try:
        with partial.open("wb") as file:
            _write_file(file, checkpoint)
            file.flush()
            os.fsync(file.fileno())
        failpoints.reached("checkpoint-written")
        partial.replace(final)
        failpoints.reached("checkpoint-renamed")
    finally:
        partial.unlink(missing_ok=True)
    _sync(folder)
    return final


def _write_file(file: BinaryIO, checkpoint: Checkpoint) -> None:
    """One pass, array by array: the library's own writer holds Python's lock for as long as the disk needs."""
    arrays = {name: np.ascontiguousarray(array) for name, array in checkpoint.arrays.items()}
    header = _header(arrays, _metadata(checkpoint))
    digest = hashlib.sha256(header)
    file.write(header)
    for number, array in enumerate(arrays.values()):
        data = array.reshape(-1).view(np.uint8).data
        digest.update(data)
        file.write(data)
        if 2 * number >= len(arrays):
            failpoints.reached("checkpoint-half")
    file.seek(header.index(_DIGEST_KEY) + len(_DIGEST_KEY))
    file.write(digest.hexdigest().encode())


def _header(arrays: Mapping[str, NDArray[Any]], metadata: dict[str, str]) -> bytes:
    """Length and JSON: names, types, shapes, places of the arrays, which follow without gaps."""
    described: dict[str, Any] = {"__metadata__": metadata}
    begin = 0
    for name, array in arrays.items():
        place = [begin, begin + array.nbytes]
        described[name] = {"dtype": _DTYPES[array.dtype.name], "shape": list(array.shape), "data_offsets": place}
        begin += array.nbytes
    text = json.dumps(described, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(_HEADER_BYTES, "little") + text


def read(path: Path) -> Checkpoint:
    """The checkpoint in a file; raises InvalidCheckpointError for whatever is wrong with it."""
    try:
        with path.open("rb") as file:
            at, said = _digest_position(file.fileno())
        if _digest(path, at) != said:
            raise InvalidCheckpointError("its SHA-256 differs from what its content says")
        with safetensors.safe_open(path, framework="numpy") as opened:
            metadata = json.loads(opened.metadata()["prototide"])
            arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a mapping
    except (OSError, safetensors.SafetensorError, KeyError, ValueError) as failed:
        raise InvalidCheckpointError(f"{type(failed).__name__}: {failed}") from None
    if metadata["format"] != FORMAT:
        raise InvalidCheckpointError(f"format {metadata['format']}, this version reads {FORMAT}")
    return Checkpoint(
        step=metadata["step"],
        positions={
            topic: {int(partition): offset for partition, offset in offsets.items()}
            for topic, offsets in metadata["positions"].items()
        },
        arrays=arrays,
        model=metadata["model"],
        fingerprint=metadata["fingerprint"],
        topic_ids=metadata["topic_ids"],
        trained=metadata["trained"],
        model_id=metadata["model_id"],
        journal=metadata["journal"],
    )


def paths(folder: Path) -> list[Path]:
    """Files named like checkpoints, newest first; raises OSError for a folder that cannot be read."""
    try:
        return sorted((path for path in folder.iterdir() if _NAME.match(path.name)), reverse=True)
    except FileNotFoundError:
        return []


def is_name(name: str) -> bool:
    """Whether a file's name is a checkpoint's."""
    return _NAME.match(name) is not None


def step_of(name: str) -> int:
    """The step that a checkpoint's name tells."""
    return int(name[:20])


def newest(folder: Path) -> tuple[Checkpoint | None, list[tuple[Path, str]]]:
    """The newest valid checkpoint, and the files that were skipped, each with the reason."""
    skipped: list[tuple[Path, str]] = []
    for path in paths(folder):
        try:
            return read(path), skipped
        except InvalidCheckpointError as invalid:
            skipped.append((path, str(invalid)))
    return None, skipped


def remove_partial(folder: Path, instance: str) -> None:
    """Removes what earlier processes of this instance left half-written."""
    for path in folder.glob(f".*.{_safe(instance)}-*.partial"):
        path.unlink(missing_ok=True)


def differences(checkpoint: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    """One line for each setting whose value differs between two fingerprints."""
    return [
        f"{name} is {json.dumps(settings.get(name))}, it was {json.dumps(checkpoint.get(name))}"
        for name in sorted(checkpoint.keys() | settings.keys())
        if json.dumps(checkpoint.get(name)) != json.dumps(settings.get(name))
    ]


def _metadata(checkpoint: Checkpoint) -> dict[str, str]:
    libraries = ("prototide", "numpy", "scipy", "numba", "safetensors")
    described = {
        "format": FORMAT,
        "step": checkpoint.step,
        "trained": checkpoint.trained,
        "model_id": checkpoint.model_id,
        "journal": checkpoint.journal,
        "positions": checkpoint.positions,
        "model": checkpoint.model,
        "fingerprint": checkpoint.fingerprint,
        "topic_ids": checkpoint.topic_ids,
        "versions": {"python": platform.python_version()} | {name: version(name) for name in libraries},
    }
    return {"prototide": json.dumps(described), "sha256": _NO_DIGEST.decode()}


def _digest_position(file: int) -> tuple[int, str]:
    """Where the digest's 64 digits stand in an open file, and what they say."""
    length = int.from_bytes(os.pread(file, _HEADER_BYTES, 0), "little")
    if length > os.fstat(file).st_size:
        raise InvalidCheckpointError("it is cut off")
    header = os.pread(file, length, _HEADER_BYTES)
    at = header.find(_DIGEST_KEY) + len(_DIGEST_KEY)
    said = header[at : at + len(_NO_DIGEST)]
    if at < len(_DIGEST_KEY) or len(said) < len(_NO_DIGEST):
        raise InvalidCheckpointError("it has no SHA-256")
    return _HEADER_BYTES + at, said.decode("ascii", "replace")


def _digest(path: Path, at: int) -> str:
    """SHA-256 of the file as if the digest at `at` were zeros."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        digest.update(file.read(at))
        digest.update(_NO_DIGEST)
        file.seek(at + len(_NO_DIGEST))
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _partial(folder: Path, step: int, writer: str) -> Path:
    return folder / f".{step:020d}.{_safe(writer)}.partial"


def _safe(writer: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_-]", "_", writer)


def _sync(folder: Path) -> None:
    with _opened(folder) as descriptor:
        os.fsync(descriptor)


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
