"""What the README says is true: its table of settings, its pieces of code."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from prototide.service.wire import Predictions, decode_batch, encode_predictions
from tests.support.settings_table import with_table

README = (Path(__file__).parents[1] / "README.md").read_text()


def code_after(heading: str) -> str:
    """The first piece of Python below a heading."""
    found = re.search(r"```python\n(.*?)```", README[README.index(heading) :], re.DOTALL)
    assert found is not None
    return found[1]


def test_settings_table_is_that_of_the_settings() -> None:
    assert with_table(README) == README, "write it anew: python -m tests.support.settings_table"


def test_readme_names_the_commands_that_make_has() -> None:
    targets = set(re.findall(r"^([a-z]+):.*## ", (Path(__file__).parents[1] / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:`|^)make ([a-z]+)\b", README, re.MULTILINE))
    assert {"demo", "test", "kafka", "lint", "format"} <= named <= targets


def test_the_learner_alone_runs(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(code_after("## The learner alone"), "README.md", "exec"), {})
    assert float(capsys.readouterr().out.splitlines()[-1]) > 0.85


@pytest.mark.kafka
def test_the_producer_in_ten_lines_sends_a_record_that_decodes(kafka: str, topic_name: Callable[[str], str]) -> None:
    topic = make_topic(kafka, topic_name("train"))
    code = code_after("### A producer in ten lines")
    assert len(code.splitlines()) <= 10
    exec(compile(code.replace("localhost:9092", kafka).replace('"train"', f'"{topic}"'), "README.md", "exec"), {})
    consumer = Consumer({"bootstrap.servers": kafka, "group.id": topic, "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    message = consumer.poll(20)
    consumer.close()
    assert message is not None
    batch = decode_batch(message.value())
    assert batch.labels == ["invoice", None]
    assert batch.X.toarray().tolist() == [[1.0, 0.0, 0.5], [0.0, 2.0, 0.0]]


@pytest.mark.kafka
def test_the_consumer_in_ten_lines_reads_predictions(
    kafka: str, topic_name: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    topic = make_topic(kafka, topic_name("predictions"))
    answer = Predictions(
        source=("train", 0, 7), step=3, labels=["invoice"], scores=np.float32([1.5]), prototypes=np.int64([4])
    )
    producer = Producer({"bootstrap.servers": kafka})
    producer.produce(topic, encode_predictions(answer))
    producer.flush()
    code = code_after("### A consumer in ten lines")
    assert len(code.splitlines()) <= 10
    replaced = {"localhost:9092": kafka, '"predictions"': f'"{topic}"', '"reader"': f'"{topic}"', "poll(10)": "poll(5)"}
    for old, new in replaced.items():
        assert old in code
        code = code.replace(old, new)
    exec(compile(code, "README.md", "exec"), {})
    assert "('train', 0, 7) ['invoice']" in capsys.readouterr().out


def make_topic(kafka: str, name: str) -> str:
    admin = AdminClient({"bootstrap.servers": kafka})  # kept: its futures end with it
    admin.create_topics([NewTopic(name, 1, 1)])[name].result(20)
    return name
