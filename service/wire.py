"""The wire format, version 1: what producers write to `train` and consumers read from `predictions`.

Imports with the light install (numpy, scipy, msgpack). A producer in three lines::

    from prototide.service.wire import encode_batch
    producer.produce("train", encode_batch(X, labels))

and a consumer's ``decode_predictions(message.value())``.
"""

from prototide.service.wire_batch import Batch, Limits, decode_batch, encode_batch
from prototide.service.wire_fields import DeadLetterReason, Label, RejectedRecord
from prototide.service.wire_predictions import (
    SHORTENED_HEADER,
    SOURCE_HEADER,
    VERSION_HEADER,
    Format,
    Predictions,
    decode_predictions,
    encode_predictions,
    encode_predictions_within,
)

__all__ = [
    "SHORTENED_HEADER",
    "SOURCE_HEADER",
    "VERSION_HEADER",
    "Batch",
    "DeadLetterReason",
    "Format",
    "Label",
    "Limits",
    "Predictions",
    "RejectedRecord",
    "decode_batch",
    "decode_predictions",
    "encode_batch",
    "encode_predictions",
    "encode_predictions_within",
]
