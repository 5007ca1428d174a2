"""Mutated train records through the decoder: never a crash or a hang; learned or dead-lettered, alone as among others.

    python -m tests.chaos.fuzz --cases 1000000

Mutations of valid records: bytes flipped, cut, inserted, copied, fields of the map changed or swapped with another
record's. Memory is watched: it must stay flat.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter

import msgpack
import numpy as np
import psutil
from scipy import sparse

from prototide.service.wire import Batch, Limits, RejectedRecord, decode_batch, encode_batch
from prototide.service.wire_batches import decode_batches

LIMITS = Limits(record_bytes=64 * 1024, rows=64, features=1000, nnz=2000, label_bytes=16)
SLOWEST_SECONDS = 1.0
TOGETHER = 50  # records that are decoded again, all at once
GROWTH_BYTES = 64 * 2**20
WARM_CASES = 20_000
ODD = (
    None,
    True,
    -1,
    0,
    2**63,
    -(2**63),
    1.5,
    "",
    "x" * 40,
    b"",
    b"\x00" * 7,
    [],
    {},
    [[]],
    [1, 5000],
    [100, 3],
    "\ud7ff",
    2**31,
)
ODD_FLOATS = np.array([np.nan, np.inf, -np.inf, -0.0, 1e-45, 3.4e38], "<f4")


def corpus(seed: int = 0) -> list[bytes]:
    """Valid records of many shapes."""
    numbers = np.random.default_rng(seed)
    made = []
    for _ in range(60):
        n, width = int(numbers.integers(1, 9)), int(numbers.integers(1, 200))
        X = sparse.random(n, width, 0.2, "csr", np.float32, numbers)
        labels = [[None, "a", "b", 7, "é"][each] for each in numbers.integers(5, size=n)]
        packed = numbers.integers(9, size=n) if numbers.random() < 0.3 else labels
        weights = numbers.random(n) if numbers.random() < 0.5 else None
        ids = list(range(n)) if numbers.random() < 0.5 else None
        made.append(encode_batch(X, packed, weights=weights, ids=ids, ts=5))
    return made


def mutated(values: list[bytes], chance: random.Random) -> bytes:
    """One of `values`, spoilt a few times; now and then not at all."""
    value = bytearray(chance.choice(values))
    for _ in range(chance.choice((0, 1, 1, 1, 2, 3, 8))):
        value = chance.choice(_MUTATIONS)(value, chance, values)
    return bytes(value)


def _flip(value: bytearray, chance: random.Random, _values: list[bytes]) -> bytearray:
    if value:
        value[chance.randrange(len(value))] ^= 1 << chance.randrange(8)
    return value


def _byte(value: bytearray, chance: random.Random, _values: list[bytes]) -> bytearray:
    if value:
        value[chance.randrange(len(value))] = chance.choice((0, 0x7F, 0x80, 0xC0, 0xC1, 0xC6, 0xC9, 0xDD, 0xDF, 0xFF))
    return value


def _cut(value: bytearray, chance: random.Random, _values: list[bytes]) -> bytearray:
    return value[: chance.randrange(len(value) + 1)]


def _insert(value: bytearray, chance: random.Random, _values: list[bytes]) -> bytearray:
    at = chance.randrange(len(value) + 1)
    return value[:at] + chance.randbytes(chance.randrange(1, 9)) + value[at:]


def _splice(value: bytearray, chance: random.Random, values: list[bytes]) -> bytearray:
    other = chance.choice(values)
    at = chance.randrange(len(value) + 1)
    return value[:at] + other[chance.randrange(len(other)) :]


def _field(value: bytearray, chance: random.Random, values: list[bytes]) -> bytearray:
    """The map stays a map: what is in it changes."""
    try:
        fields = msgpack.unpackb(bytes(value), strict_map_key=False)
        other = msgpack.unpackb(chance.choice(values))
        name = chance.choice([*fields, "else"])
        match chance.randrange(4):
            case 0:
                fields[name] = chance.choice(ODD)
            case 1:
                fields.pop(name, None)
            case 2:
                fields[name] = other.get(name)
            case _:
                fields["data"] = _odd_floats(fields["data"], chance)
        return bytearray(msgpack.packb(fields))
    except Exception:  # it is no map any more
        return value


def _odd_floats(data: bytes, chance: random.Random) -> bytes:
    floats = np.frombuffer(data, "<f4").copy()
    if floats.size:
        floats[chance.randrange(floats.size)] = ODD_FLOATS[chance.randrange(ODD_FLOATS.size)]
    return floats.tobytes()


_MUTATIONS = (_flip, _byte, _cut, _insert, _splice, _field, _field, _field)


def decision(value: bytes) -> tuple[str, ...]:
    """What becomes of a record: learned with these contents, or a dead letter for this reason; anything else raises."""
    try:
        return described(decode_batch(value, LIMITS))
    except RejectedRecord as rejected:
        return described(rejected)


def described(batch: Batch | RejectedRecord) -> tuple[str, ...]:
    """A decision, comparable."""
    if isinstance(batch, RejectedRecord):
        return (str(batch.reason), batch.detail)
    _check_sound(batch)
    return ("learned", str(batch.X.shape), batch.X.data.tobytes().hex(), repr(list(batch.labels)), repr(batch.ids))


def _check_sound(batch: Batch) -> None:
    """What the learner relies on."""
    n, width = batch.X.shape
    assert 1 <= n <= LIMITS.rows, n
    assert 1 <= width <= LIMITS.features, width
    assert len(batch.labels) == n
    batch.X.check_format(full_check=True)
    assert np.isfinite(batch.X.data).all()
    assert batch.weights is None or (np.isfinite(batch.weights).all() and (batch.weights >= 0).all())


def _check_together(decided: list[tuple[bytes, tuple[str, ...]]], where: str) -> None:
    """Records decoded together are decided as each alone."""
    for (value, alone), one in zip(decided, decode_batches([value for value, _ in decided], LIMITS), strict=True):
        assert described(one) == alone, f"{where}, record {value.hex()}: decided differently among others"


def run(cases: int, seed: int) -> Counter[str]:
    """Raises AssertionError with the record's bytes when a case fails; how often each decision was taken."""
    chance, values = random.Random(seed), corpus(seed)
    found: Counter[str] = Counter()
    process, resident = psutil.Process(), 0
    together: list[tuple[bytes, tuple[str, ...]]] = []
    for number in range(cases):
        value = mutated(values, chance)
        started = time.perf_counter()
        try:
            first = decision(value)
            assert first == decision(value), "decided differently the second time"
        except Exception as failed:
            raise AssertionError(f"seed {seed}, case {number}, record {value.hex()}: {failed!r}") from failed
        seconds = time.perf_counter() - started
        assert seconds < SLOWEST_SECONDS, f"{seconds:.1f} s for {value.hex()}"
        found[first[0]] += 1
        together.append((value, first))
        if len(together) == TOGETHER or number == cases - 1:
            _check_together(together, f"seed {seed}, up to case {number}")
            together.clear()
        if number == min(WARM_CASES, cases // 2):
            resident = process.memory_info().rss
    grown = process.memory_info().rss - resident
    assert grown < GROWTH_BYTES, f"memory grew by {grown} bytes"
    return found


def main() -> None:
    """Prints how often each decision was taken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**31)
    options = parser.parse_args()
    started = time.perf_counter()
    found = run(options.cases, options.seed)
    seconds = time.perf_counter() - started
    print(f"{options.cases:,} records, seed {options.seed}, {seconds:.0f} s: {dict(found.most_common())}")


if __name__ == "__main__":
    main()
