from __future__ import annotations

import zlib
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prototide.service.journal import (
    Encoding,
    Genesis,
    Heartbeat,
    Range,
    Step,
    UndecodableJournalError,
    crc,
    decode,
    encode,
)

COUNTS = st.integers(0, 2**62)
STEPS = st.builds(
    Step,
    model=st.text(max_size=9),
    instance=st.text(max_size=9),
    time_ms=COUNTS,
    number=COUNTS,
    learned=st.booleans(),
    ranges=st.lists(st.builds(Range, COUNTS, COUNTS, COUNTS, COUNTS), max_size=4).map(tuple),
    values_crc=COUNTS,
    predictions_crc=COUNTS,
    dead_letters=COUNTS,
    skipped=st.lists(st.tuples(COUNTS, COUNTS), max_size=3).map(tuple),
    encoding=st.builds(Encoding, st.sampled_from(["msgpack", "json"]), COUNTS, COUNTS),
)
GENESES = st.builds(
    Genesis,
    model=st.text(max_size=9),
    instance=st.text(max_size=9),
    time_ms=COUNTS,
    topic=st.text(max_size=9),
    positions=st.dictionaries(COUNTS, COUNTS, max_size=4),
    fingerprint=st.dictionaries(
        st.text(max_size=4), st.none() | st.booleans() | COUNTS | st.text(max_size=4), max_size=4
    ),
    topic_ids=st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=4),
)


@given(STEPS | GENESES | st.builds(Heartbeat, st.text(max_size=9), COUNTS))
def test_what_is_encoded_is_decoded(entry: Any) -> None:
    assert decode(encode(entry)) == entry


@given(st.binary(max_size=200))
def test_other_bytes_are_refused_and_nothing_else_is_raised(value: bytes) -> None:
    with pytest.raises(UndecodableJournalError):
        decode(value)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"v": 2, "kind": "step"}, "version 2"),
        ({"v": 1, "kind": "else"}, "unknown kind 'else'"),
        ({"v": 1, "kind": "step"}, "KeyError"),
        ({"kind": "step"}, "KeyError"),
        ([1], "TypeError"),
    ],
)
def test_another_version_or_kind_is_said(fields: Any, says: str) -> None:
    with pytest.raises(UndecodableJournalError, match=says):
        decode(msgpack.packb(fields))


def test_nothing_is_undecodable() -> None:
    with pytest.raises(UndecodableJournalError):
        decode(None)


def test_the_checksum_is_that_of_all_values_in_order() -> None:
    assert crc([b"ab", None, b"", b"c"]) == zlib.crc32(b"abc")
    assert crc([b"c", b"ab"]) != zlib.crc32(b"abc")
