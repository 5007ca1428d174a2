"""The `predictions` topic's format: what was predicted for the rows of one `train` record."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import msgpack
import numpy as np
from numpy.typing import NDArray

from prototide.service.wire_fields import (
    FLOAT32,
    INT64,
    VERSION,
    DeadLetterReason,
    Label,
    RejectedRecord,
    Unpacked,
    check_finite,
    check_keys,
    check_version,
    is_int64,
    scalars,
    schema,
    unpack,
    vector,
)

Format = Literal["msgpack", "json"]

VERSION_HEADER = "prototide-version"
SOURCE_HEADER = "prototide-source"  # topic/partition/offset
SHORTENED_HEADER = "prototide-shortened"  # "1" when the record left something out

_REQUIRED = frozenset({"v", "source", "step", "labels", "scores", "prototypes"})
_OPTIONAL = frozenset({"top_k", "top_labels", "top_probs", "truth", "ids", "ts"})


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Predictions:
    """One record's predictions, n rows; what the record leaves out is None.

    `scores`: float32 (n,). `prototypes`: int64 (n,), -1 for none. `top_labels` and `top_probs` (float32): n x `top_k`
    values, row after row. `truth`: the labels as given.
    """

    source: tuple[str, int, int]  # topic, partition, offset
    step: int
    labels: list[Label | None]
    scores: NDArray[np.float32]
    prototypes: NDArray[np.int64]
    top_k: int | None = None
    top_labels: list[Label | None] | None = None
    top_probs: NDArray[np.float32] | None = None
    truth: list[Label | None] | None = None
    ids: list[Label] | None = None
    ts: int | None = None
    v: int = VERSION


# What a record of several that were predicted together has of its own: source, truth, ids and ts of `Predictions`.
Part = tuple[tuple[str, int, int], list[Label | None] | None, list[Label] | None, int | None]


def encode_predictions(predictions: Predictions, encoding: Format = "msgpack") -> bytes:
    """One record's value, as a msgpack map or as JSON with arrays as lists."""
    if encoding == "json":
        fields = _fields(predictions, lambda array, dtype: array.astype(dtype).ravel().tolist())
        return json.dumps(fields, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    fields = _fields(predictions, lambda array, dtype: array.astype(dtype).tobytes())
    return bytes(msgpack.packb(fields))


def encode_parts(whole: Predictions, parts: Sequence[Part], bounds: Sequence[int]) -> list[bytes]:
    """The msgpack values of consecutive parts of some predictions, as `encode_predictions` writes each, but faster.

    `whole`: the rows of all parts; its source, truth, ids and ts are not looked at. `bounds`: one more than there are
    parts, part i has rows bounds[i] to bounds[i + 1].
    """
    scores = np.asarray(whole.scores).astype(FLOAT32).tobytes()
    prototypes = np.asarray(whole.prototypes).astype(INT64).tobytes()
    k, labels, top_labels = whole.top_k or 0, whole.labels, whole.top_labels or []
    top_probs = np.asarray(whole.top_probs).astype(FLOAT32).tobytes() if k else b""
    pack = msgpack.Packer().pack
    values = []
    for (source, truth, ids, ts), begin, end in zip(parts, bounds[:-1], bounds[1:], strict=True):
        fields: dict[str, Any] = {
            "v": whole.v,
            "source": source,
            "step": whole.step,
            "labels": labels[begin:end],
            "scores": scores[4 * begin : 4 * end],
            "prototypes": prototypes[8 * begin : 8 * end],
        }
        if k:
            fields["top_k"] = k
            fields["top_labels"] = top_labels[k * begin : k * end]
            fields["top_probs"] = top_probs[4 * k * begin : 4 * k * end]
        if truth is not None:
            fields["truth"] = truth
        if ids is not None:
            fields["ids"] = ids
        if ts is not None:
            fields["ts"] = ts
        values.append(pack(fields))
    return values


def encode_predictions_within(
    predictions: Predictions, max_bytes: int, encoding: Format = "msgpack"
) -> tuple[bytes, bool]:
    """One record's value of at most `max_bytes`, and whether something was left out: `top_*`, then `truth`, then `ids`.

    Raises `ValueError` when the rest does not fit either.
    """
    payload = encode_predictions(predictions, encoding)
    if len(payload) <= max_bytes:
        return payload, False
    for left_out in ({"top_k": None, "top_labels": None, "top_probs": None}, {"truth": None}, {"ids": None}):
        predictions = replace(predictions, **left_out)  # type: ignore[arg-type]
        payload = encode_predictions(predictions, encoding)
        if len(payload) <= max_bytes:
            return payload, True
    if encoding == "json":  # escapes may make a label six times as long: only msgpack is sure to fit
        return encode_predictions_within(predictions, max_bytes)[0], True
    raise ValueError(
        f"the predictions of {len(predictions.labels)} rows need {len(payload)} bytes, "
        f"{max_bytes} fit beside key and headers; raise limits.prediction_bytes, "
        "or lower limits.rows or limits.label_bytes"
    )


def decode_predictions(payload: bytes | None) -> Predictions:
    """Reads one record's value, msgpack or JSON. Raises `RejectedRecord` (a `ValueError`) for anything else."""
    if not payload:
        raise RejectedRecord(DeadLetterReason.EMPTY, "the record has no value")
    # No msgpack map begins with the byte "{": it is the int 123 there.
    unpacked = _unpack_json(payload) if payload[:1] == b"{" else unpack(payload)
    fields = unpacked.fields
    check_version(fields)
    check_keys(unpacked, _REQUIRED, _OPTIONAL)
    n = len(fields["labels"]) if type(fields["labels"]) is list else 0
    if not is_int64(fields["step"]) or ("ts" in fields and not is_int64(fields["ts"])):
        raise schema("step and ts must be ints of 64 bits")
    decoded = Predictions(
        source=_source(fields["source"]),
        step=fields["step"],
        labels=scalars("labels", fields["labels"], n, nil=True),
        scores=vector("scores", fields["scores"], FLOAT32, n),
        prototypes=vector("prototypes", fields["prototypes"], INT64, n),
        truth=scalars("truth", fields["truth"], n, nil=True) if "truth" in fields else None,
        ids=scalars("ids", fields["ids"], n, nil=False) if "ids" in fields else None,
        ts=fields.get("ts"),
        **_top(fields, n),
    )
    check_finite("scores", decoded.scores)
    return decoded


def _fields(predictions: Predictions, numbers: Any) -> dict[str, Any]:
    """The map to send, absent keys left out; `numbers` writes an array of a dtype."""
    fields: dict[str, Any] = {
        "v": predictions.v,
        "source": list(predictions.source),
        "step": predictions.step,
        "labels": predictions.labels,
        "scores": numbers(np.asarray(predictions.scores), FLOAT32),
        "prototypes": numbers(np.asarray(predictions.prototypes), INT64),
    }
    if predictions.top_k:
        fields["top_k"] = predictions.top_k
        fields["top_labels"] = predictions.top_labels
        fields["top_probs"] = numbers(np.asarray(predictions.top_probs), FLOAT32)
    for name in ("truth", "ids", "ts"):
        if (value := getattr(predictions, name)) is not None:
            fields[name] = value
    return fields


def _source(source: object) -> tuple[str, int, int]:
    if type(source) is not list or [type(part) for part in source] != [str, int, int]:
        raise schema("source must be [topic, partition, offset]")
    return source[0], source[1], source[2]


def _top(fields: dict[str, Any], n: int) -> dict[str, Any]:
    present = {"top_k", "top_labels", "top_probs"} & fields.keys()
    if not present:
        return {}
    if len(present) < 3:
        raise schema("top_k, top_labels and top_probs must come together")
    k = fields["top_k"]
    if not is_int64(k) or k < 1:
        raise schema("top_k must be an int of at least 1")
    return {
        "top_k": k,
        "top_labels": scalars("top_labels", fields["top_labels"], n * k, nil=True),
        "top_probs": vector("top_probs", fields["top_probs"], FLOAT32, n * k),
    }


def _unpack_json(payload: bytes) -> Unpacked:
    """JSON's numeric lists become bytes, so that one set of checks serves both encodings."""
    try:
        fields = json.loads(payload)
        for name, dtype in (("scores", FLOAT32), ("prototypes", INT64), ("top_probs", FLOAT32)):
            if name in fields:
                fields[name] = np.array(fields[name], dtype).tobytes()
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise RejectedRecord(DeadLetterReason.DECODE, f"not the JSON of predictions: {error}") from None
    return Unpacked(fields, ())
