"""The service with its promise broken on purpose: what the chaos suite must notice. `SABOTAGE` says how."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from confluent_kafka import Producer

from prototide.service.__main__ import main
from prototide.service.broker import Output
from prototide.service.transactions import TransactionalSink

honest = TransactionalSink.commit


def leave_out(sink: TransactionalSink, outputs: Sequence[Output], journal: Sequence[Output]) -> list[int]:
    """Steps are not journalled; a genesis is, which comes without outputs."""
    if not outputs:
        return honest(sink, outputs, journal)
    honest(sink, outputs, [])
    return list(range(len(journal)))


def outside(sink: TransactionalSink, outputs: Sequence[Output], journal: Sequence[Output]) -> list[int]:
    """Steps are journalled before and apart from their transaction."""
    if not outputs:
        return honest(sink, outputs, journal)
    brokers = "kafka.bootstrap_servers="
    producer = Producer({"bootstrap.servers": next(each for each in sys.argv if brokers in each).removeprefix(brokers)})
    for record in journal:
        producer.produce(record.topic, record.value, partition=0)
    producer.flush()
    honest(sink, outputs, [])
    return list(range(len(journal)))


if __name__ == "__main__":
    TransactionalSink.commit = {"leave-out": leave_out, "outside": outside}[os.environ["SABOTAGE"]]  # type: ignore[method-assign]
    main()
