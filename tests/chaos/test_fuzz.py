"""The short form of `make fuzz`: a seed of its own each time, named when a case fails."""

from __future__ import annotations

import random
import time

from tests.chaos.fuzz import corpus, decision, run


def test_mutated_records_are_learned_or_dead_lettered_and_nothing_else() -> None:
    found = run(30_000, seed=time.time_ns() % 2**31)
    assert {"learned", "decode", "schema", "version", "nonfinite", "limits", "empty"} <= found.keys()


def test_the_corpus_is_valid() -> None:
    assert {decision(value)[0] for value in corpus(random.randrange(2**31))} == {"learned"}
