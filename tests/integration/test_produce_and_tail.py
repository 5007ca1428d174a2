"""Feeding and reading on a real Kafka: what the embedded broker cannot show."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from confluent_kafka import Producer

from prototide.service.errors import PersonMustAct
from prototide.service.producing import Feed, new_sender, produce_file
from prototide.service.row_encoding import RowEncoder
from prototide.service.settings import Settings, load
from prototide.service.sources import Columns
from prototide.service.tailing import Kind, Reader, told
from prototide.service.topics import TopicSpec, create_topics
from prototide.service.wire import Predictions, encode_predictions

pytestmark = pytest.mark.kafka


def with_topic(kafka: str, topic: str, max_message_bytes: int = 2**20) -> Settings:
    settings = load(None, [f"kafka.bootstrap_servers={kafka}"], {})
    create_topics(settings, [TopicSpec(topic, 2, 1, max_message_bytes)])
    return settings


def never() -> bool:
    return False


def test_tail_shows_committed_records_only(kafka: str, topic_name: Callable[[str], str]) -> None:
    topic = topic_name("predictions")
    settings = with_topic(kafka, topic)
    producer = Producer({"bootstrap.servers": kafka, "transactional.id": topic})
    producer.init_transactions(30)
    for label, is_committed in (("kept", True), ("aborted", False), ("kept too", True)):
        predictions = Predictions(
            source=("train", 0, 0), step=1, labels=[label], scores=np.ones(1, np.float32), prototypes=np.ones(1)
        )
        producer.begin_transaction()
        producer.produce(topic, encode_predictions(predictions), partition=0)
        producer.flush(30)
        if is_committed:
            producer.commit_transaction(30)
        else:
            producer.abort_transaction(30)
    reader = Reader(settings, topic, from_beginning=True, until_end=True, stopped=never)
    try:
        rows = told([*itertools.chain.from_iterable(reader)], Kind.PREDICTIONS).rows
    finally:
        reader.close()
    assert [row["label"] for row in rows] == ["kept", "kept too"]


def test_every_row_of_a_file_is_acknowledged(kafka: str, topic_name: Callable[[str], str], tmp_path: Path) -> None:
    topic = topic_name("train")
    settings = with_topic(kafka, topic)
    path = tmp_path / "rows.tsv"
    path.write_text("".join(f"label-{i % 7}\ttext number {i}\n" for i in range(3000)))
    feed = Feed(path=path, columns=Columns(), shuffle_seed=0)
    encoder = RowEncoder(2**17, settings.limits.record())
    sent = produce_file(feed, new_sender(settings, topic, never), encoder, never, lambda _rows, _share: None)
    assert (sent.rows_delivered, sent.records, sent.records_failed) == (3000, 12, 0)


def test_records_too_large_for_the_topic_are_counted_and_explained(
    kafka: str, topic_name: Callable[[str], str], tmp_path: Path
) -> None:
    topic = topic_name("train")
    settings = with_topic(kafka, topic, max_message_bytes=2000)
    path = tmp_path / "rows.tsv"
    generator = np.random.default_rng()
    path.write_text("".join(f"a\t{' '.join(map(str, generator.integers(10, 10**9, 50)))}\n" for _ in range(100)))
    encoder = RowEncoder(2**17, settings.limits.record())
    sender = new_sender(settings, topic, never)
    feed = Feed(path=path, columns=Columns(), batch_rows=50)
    with pytest.raises(PersonMustAct, match=r"2 of 2 records were not delivered.*max\.message\.bytes"):
        produce_file(feed, sender, encoder, never, lambda _rows, _share: None)
