"""`prototide demo` as a person runs it: a few seconds, interrupted, on a broker of one's own."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition
from typer.testing import CliRunner

from prototide.service.cli import app
from prototide.service.demo_feed import embedded_broker
from prototide.service.demo_stream import DemoStream
from prototide.service.wire import decode_batch

COMMAND = [sys.executable, "-m", "prototide.service", "demo"]
PATIENCE_SECONDS = 240  # compiling the learner included


@pytest.fixture
def interrupted_demo(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A demo that runs, and the file of what it says."""
    said = tmp_path / "said"
    with said.open("wb") as output:
        demo = subprocess.Popen([*COMMAND, "--seed", "3"], stdout=output, stderr=subprocess.STDOUT)
        try:
            yield demo, said
        finally:
            demo.kill()
            demo.wait()


def test_demo_for_some_seconds_ends_with_a_summary_of_what_it_did() -> None:
    ended = subprocess.run([*COMMAND, "--seconds", "3"], capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stderr == ""
    lines = ended.stdout.splitlines()
    assert lines[0].startswith("metrics at http://127.0.0.1:")
    assert sum("warming up" in line for line in lines) <= 1
    assert any(" rows/s  accuracy " in line for line in lines)
    figures = {name: int(_number(name, ended.stdout)) for name in ("rows", "records", "classes", "centroids")}
    assert figures["rows"] >= 64
    assert figures["records"] >= figures["rows"] / 64
    assert figures["centroids"] >= figures["classes"] > 4
    assert "drift alarms" in ended.stdout
    assert "dead letters" in ended.stdout


def test_demo_ends_cleanly_at_ctrl_c(interrupted_demo: tuple[subprocess.Popen[bytes], Path]) -> None:
    demo, said = interrupted_demo
    address = _wait_for(said, r"metrics at (\S+)")
    _wait_for(said, r"rows/s  accuracy (\S+)")
    with urllib.request.urlopen(address, timeout=5) as answer:
        assert "prototide_rows_predicted_total" in answer.read().decode()
    demo.send_signal(signal.SIGINT)
    assert demo.wait(30) == 0
    assert "Traceback" not in said.read_text()
    assert _number("rows", said.read_text()) > 0


def test_demo_that_cannot_serve_its_port_says_so_in_one_line() -> None:
    with embedded_broker() as address:
        taken = address.rpartition(":")[2]
        ended = subprocess.run([*COMMAND, "--port", taken], capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert ended.returncode == 78
    assert ended.stderr.startswith("prototide: cannot serve HTTP on 127.0.0.1:")
    assert ended.stderr.count("\n") == 1


def test_produce_only_sends_the_same_stream_to_the_brokers_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    with embedded_broker(["own-train"]) as address:
        monkeypatch.setenv("PROTOTIDE_KAFKA__BOOTSTRAP_SERVERS", address)
        monkeypatch.setenv("PROTOTIDE_TOPICS__TRAIN", "own-train")
        assert threading.current_thread() is threading.main_thread()  # the command handles signals
        result = CliRunner().invoke(app, ["demo", "--produce-only", "--seconds", "0.5", "--rate", "640", "--seed", "7"])
        payloads = _first_records(address, "own-train")
    assert result.exit_code == 0, result.output
    assert "records delivered to own-train" in result.output
    stream = DemoStream(seed=7)
    expected = {tuple(stream.batch(64)[1]) for _ in range(len(payloads))}
    assert {tuple(decode_batch(payload).labels) for payload in payloads} == expected
    assert 1 <= len(payloads) <= 7


def test_produce_only_names_the_command_that_makes_a_missing_topic(monkeypatch: pytest.MonkeyPatch) -> None:
    with embedded_broker(["another"]) as address:
        monkeypatch.setenv("PROTOTIDE_KAFKA__BOOTSTRAP_SERVERS", address)
        result = CliRunner().invoke(app, ["demo", "--produce-only"])
    assert result.exit_code == 78
    assert "`prototide topics create`" in result.output


def _number(name: str, text: str) -> float:
    found = re.search(rf"^{name} +([\d,]+)", text, re.MULTILINE)
    assert found is not None, text
    return float(found[1].replace(",", ""))


def _wait_for(said: Path, pattern: str) -> str:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (found := re.search(pattern, said.read_text())) is None:
        assert time.monotonic() < deadline, said.read_text()
        time.sleep(0.05)
    return found[1]


def _first_records(broker: str, topic: str) -> list[bytes]:
    """What is on a topic to which nobody writes any more."""
    consumer = Consumer({"bootstrap.servers": broker, "group.id": "test", "enable.auto.commit": False})
    try:
        partitions = [
            TopicPartition(topic, each) for each in consumer.list_topics(topic, timeout=10).topics[topic].partitions
        ]
        expected = 0
        for partition in partitions:
            _, high = consumer.get_watermark_offsets(partition, timeout=10)
            expected += high
            partition.offset = 0
        consumer.assign(partitions)
        payloads: list[bytes] = []
        deadline = time.monotonic() + 20
        while len(payloads) < expected and time.monotonic() < deadline:
            payloads += [m.value() for m in consumer.consume(expected, 0.2) if m.error() is None]
        assert len(payloads) == expected
        return payloads
    finally:
        consumer.close()
