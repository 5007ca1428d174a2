"""The two commands as a person runs them, against the embedded broker."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import typer
from confluent_kafka import Producer
from typer.testing import CliRunner, Result

from prototide.service.commands.produce import produce
from prototide.service.commands.tail import tail
from prototide.service.demo_feed import embedded_broker
from prototide.service.wire import Predictions, encode_predictions

app = typer.Typer()
app.command()(produce)
app.command()(tail)


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    with embedded_broker(["train", "elsewhere", "predictions", "dead-letters"]) as address:
        producer = Producer({"bootstrap.servers": address})
        for offset in range(3):
            predictions = Predictions(
                source=("train", 0, offset),
                step=offset,
                labels=["spam", 7],
                scores=np.ones(2, np.float32),
                prototypes=np.arange(2),
            )
            producer.produce("predictions", encode_predictions(predictions), partition=0)
        producer.produce("predictions", b"\xc1", partition=0)
        producer.produce("dead-letters", b"x", headers=[("dlq.reason", "decode")])
        assert producer.flush(20) == 0
        yield address


def prototide(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_produce_sends_a_file_and_ends_with_one_line(broker: str, tmp_path: Path) -> None:
    path = tmp_path / "mails.csv"
    path.write_text("class,body\nspam,buy now\nham,hello\nspam,buy more\n")
    arguments = ["--label", "class", "--text", "2", "--batch-rows", "2", "--bootstrap-servers", broker]
    done = prototide("produce", path, *arguments)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith("3 rows in 2 records delivered to train in ")
    assert done.stdout.count("\n") == 1


def test_produce_sends_to_another_topic_by_flag_or_by_settings(broker: str, tmp_path: Path) -> None:
    path = tmp_path / "a.svm"
    path.write_text("1 2:1\n")
    for flags in (["--topic", "elsewhere"], ["--set", "topics.train=elsewhere"]):
        done = prototide("produce", path, *flags, "--set", f"kafka.bootstrap_servers={broker}")
        assert done.stdout.startswith("1 row in 1 record delivered to elsewhere")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.tsv", "a\tb\nc\n", "a.tsv, line 2: 1 column"),
        ("a.xml", "", "unknown kind of file"),
        ("a.tsv", None, "No such file"),
    ],
)
def test_produce_ends_with_78_and_one_line_for_a_file_it_cannot_read(
    broker: str, tmp_path: Path, name: str, content: str | None, said: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    done = prototide("produce", tmp_path / name, "--bootstrap-servers", broker)
    assert done.exit_code == 78
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_produce_refuses_column_0(broker: str, tmp_path: Path) -> None:
    done = prototide("produce", tmp_path / "a.tsv", "--label", "0")
    assert done.exit_code == 2
    assert "numbered from 1" in done.stderr


def test_no_broker_ends_with_75(tmp_path: Path) -> None:
    path = tmp_path / "a.svm"
    path.write_text("1 2:1\n")
    flags = ["--bootstrap-servers", "127.0.0.1:1", "--set", "kafka.startup_timeout_s=0.5"]
    assert prototide("produce", path, *flags).exit_code == 75
    assert prototide("tail", "predictions", *flags).exit_code == 75


def test_tail_prints_json_rows_and_says_what_it_could_not_read(broker: str) -> None:
    done = prototide("tail", "predictions", "--from-beginning", "--until-end", "--json", "--bootstrap-servers", broker)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(row["source"], row["label"]) for row in rows] == [
        (f"train/0/{offset}", label) for offset in range(3) for label in ("spam", 7)
    ]
    assert "predictions/0/3 is no prediction record" in done.stderr
    assert done.exit_code == 0


def test_tail_ends_after_its_limit_of_rows(broker: str) -> None:
    done = prototide("tail", "predictions", "--from-beginning", "--limit", "3", "--json", "--bootstrap-servers", broker)
    assert len(done.stdout.splitlines()) == 3


def test_tail_prints_tables_by_default(broker: str) -> None:
    flags = ["--from-beginning", "--until-end", "--bootstrap-servers", broker]
    assert "spam" in prototide("tail", "predictions", *flags).stdout
    assert "decode" in prototide("tail", "dead-letters", *flags).stdout


def test_tail_asks_what_a_topic_of_another_name_holds(broker: str) -> None:
    done = prototide("tail", "train", "--bootstrap-servers", broker)
    assert done.exit_code == 78
    assert "--kind" in done.stderr


@pytest.mark.parametrize("command", ["produce", "tail"])
def test_help_shows_how_it_is_used(command: str) -> None:
    done = prototide(command, "--help")
    assert done.exit_code == 0
    assert f"prototide {command} " in done.stdout
