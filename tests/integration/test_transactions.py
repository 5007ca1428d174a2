"""Transactions on a real Kafka: all visible together or nothing, the same records again after an abort, fencing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from prototide.service.broker import Output
from prototide.service.clients import ClientErrors, transactional_properties
from prototide.service.errors import PersonMustAct, RestartMayHelp
from prototide.service.transactions import MOST_ABORTS, TransactionalSink
from tests.support.kafka import Broker, free_port
from tests.support.service import Service, consume_all
from tests.support.stream import until

pytestmark = pytest.mark.kafka


@pytest.fixture
def service(kafka: str, tmp_path: Path, topic_name: Callable[[str], str]) -> Service:
    return Service(kafka, tmp_path, topic_name).create_topics()


@pytest.fixture
def sink(service: Service) -> Iterator[TransactionalSink]:
    made = new_sink(service)
    made.fence(30)
    yield made
    made.close()


def new_sink(service: Service, deadline_seconds: float = 60, give_up: Callable[[], bool] = lambda: False) -> Any:
    properties = transactional_properties(service.settings, 2**20, 2**24)
    return TransactionalSink(properties, ClientErrors(), deadline_seconds, give_up)


def outputs(service: Service, *values: bytes) -> list[Output]:
    return [Output(service.settings.topics.predictions, 0, None, value, ()) for value in values]


def journal(service: Service, *values: bytes) -> list[Output]:
    return [Output(service.settings.topics.journal, 0, None, value, ()) for value in values]


def visible(service: Service, count: int) -> list[bytes | None]:
    return [message.value() for message in consume_all(service.settings, service.settings.topics.predictions, count)]


def test_a_commit_tells_the_offsets_of_the_journals_records(service: Service, sink: TransactionalSink) -> None:
    first = sink.commit(outputs(service, b"a", b"b"), journal(service, b"1"))
    second = sink.commit(outputs(service, b"c"), journal(service, b"2", b"3"))
    messages = consume_all(service.settings, service.settings.topics.journal, 3)
    assert [message.offset() for message in messages] == [*first, *second]
    assert visible(service, 3) == [b"a", b"b", b"c"]


def test_a_new_owner_fences_the_old_one(service: Service, sink: TransactionalSink) -> None:
    sink.commit(outputs(service, b"a"), journal(service, b"1"))
    successor = new_sink(service)
    successor.fence(30)
    with pytest.raises(RestartMayHelp, match="took over"):
        sink.commit(outputs(service, b"lost"), journal(service, b"2"))
    successor.commit(outputs(service, b"b"), journal(service, b"2"))
    assert visible(service, 2) == [b"a", b"b"]
    successor.close()


class Reluctant:
    """A producer whose next commits fail as asked, before they reach the broker."""

    def __init__(self, producer: Any, errors: list[KafkaError]) -> None:
        self._producer = producer
        self._errors = errors

    def commit_transaction(self, timeout: float) -> None:
        if self._errors:
            raise KafkaException(self._errors.pop(0))
        self._producer.commit_transaction(timeout)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)


def failing(sink: Any, *errors: KafkaError) -> None:
    sink._producer = Reluctant(sink._producer, list(errors))


def abortable(code: int) -> KafkaError:
    return KafkaError(code, "by design", False, False, True)


def test_an_aborted_transaction_is_sent_again_once(service: Service, sink: TransactionalSink) -> None:
    failing(sink, *[abortable(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER)] * 2)
    sink.commit(outputs(service, b"a", b"b"), journal(service, b"1"))
    sink.commit(outputs(service, b"c"), journal(service, b"2"))
    assert visible(service, 3) == [b"a", b"b", b"c"]


def test_a_transaction_that_always_aborts_is_given_up(service: Service, sink: TransactionalSink) -> None:
    failing(sink, *[abortable(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER)] * (MOST_ABORTS + 1))
    with pytest.raises(RestartMayHelp, match="aborted 6 times"):
        sink.commit(outputs(service, b"a"), journal(service, b"1"))
    assert visible(service, 0) == []


def test_a_commit_whose_answer_does_not_come_is_repeated(service: Service, sink: TransactionalSink) -> None:
    timed_out, retriable = KafkaError(KafkaError._TIMED_OUT), KafkaError(KafkaError._TRANSPORT, "lost", False, True)
    failing(sink, timed_out, retriable, timed_out)
    sink.commit(outputs(service, b"a"), journal(service, b"1"))
    assert visible(service, 1) == [b"a"]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (KafkaError._FENCED, RestartMayHelp),
        (KafkaError.INVALID_PRODUCER_ID_MAPPING, RestartMayHelp),
        (KafkaError._FATAL, RestartMayHelp),
        (KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, PersonMustAct),
        (KafkaError.INVALID_TRANSACTION_TIMEOUT, PersonMustAct),
    ],
)
def test_what_repeating_cannot_mend_ends_the_service(
    service: Service, sink: TransactionalSink, code: int, kind: type[Exception]
) -> None:
    failing(sink, KafkaError(code, "by design", True))
    with pytest.raises(kind, match="commit_transaction: by design"):
        sink.commit(outputs(service, b"a"), journal(service, b"1"))


def test_a_record_that_is_too_large_loses_no_other(service: Service, sink: TransactionalSink) -> None:
    with pytest.raises(PersonMustAct, match="aborted"):
        sink.commit(outputs(service, b"a", bytes(2**25)), journal(service, b"1"))
    sink.commit(outputs(service, b"b"), journal(service, b"1"))
    assert visible(service, 1) == [b"b"]


def test_brokers_that_stay_away_are_given_up_at_the_deadline_or_when_asked(tmp_path: Path) -> None:
    for deadline, give_up, says in ((0.5, False, "startup_timeout_s = 0.5"), (60.0, True, "asked to stop")):
        service = Service(f"127.0.0.1:{free_port()}", tmp_path, lambda name: name)
        sink = new_sink(service, deadline, lambda answer=give_up: answer)  # type: ignore[misc]
        with pytest.raises(RestartMayHelp, match=says):
            sink.fence(deadline)
        sink.close()


def test_a_broker_that_dies_in_the_middle_of_commits_doubles_and_loses_nothing(
    own_kafka: Broker, tmp_path: Path, topic_name: Callable[[str], str]
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    service = Service(own_kafka.bootstrap_servers, tmp_path, topic_name).create_topics()
    sink = new_sink(service)
    sink.fence(30)
    with ThreadPoolExecutor(1) as pool:
        done: list[int] = []

        def commit_many() -> None:
            for number in range(400):
                sink.commit(outputs(service, b"%d" % number), journal(service, b"j"))
                done.append(number)

        committing = pool.submit(commit_many)
        for count in (50, 200):
            until(lambda count=count: len(done) > count, 60)  # type: ignore[misc]
            own_kafka.kill()
            own_kafka.start()
        committing.result(120)
    assert visible(service, 400) == [b"%d" % number for number in range(400)]
    sink.close()
