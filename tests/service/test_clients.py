from __future__ import annotations

import pytest
from confluent_kafka import Consumer, KafkaError, Producer

from prototide.service.clients import (
    ClientErrors,
    consumer_properties,
    new_client,
    producer_properties,
    service_error,
)
from prototide.service.errors import PersonMustAct, RestartMayHelp
from prototide.service.settings import Settings, load


def settings(*overrides: str) -> Settings:
    return load(None, list(overrides), {})


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (KafkaError._AUTHENTICATION, PersonMustAct),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, PersonMustAct),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, PersonMustAct),
        (KafkaError._AUTO_OFFSET_RESET, PersonMustAct),
        (KafkaError.MSG_SIZE_TOO_LARGE, PersonMustAct),
        (KafkaError._MSG_TIMED_OUT, RestartMayHelp),
        (KafkaError._FATAL, RestartMayHelp),
        (KafkaError._TRANSPORT, RestartMayHelp),
    ],
)
def test_an_error_says_who_must_act(code: int, kind: type[Exception]) -> None:
    error = service_error(KafkaError(code, "by design"), "sending")
    assert type(error) is kind
    assert "sending: by design" in str(error)


def test_brokers_that_are_away_are_waited_for() -> None:
    errors = ClientErrors()
    errors(KafkaError(KafkaError._TRANSPORT, "down"))
    assert errors.brokers_up
    errors(KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down"))
    errors.raise_any()
    assert not errors.brokers_up


def test_an_error_that_repeats_is_told_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    errors = ClientErrors()
    for _ in range(100):
        errors(KafkaError(KafkaError._TRANSPORT, "down"))
    errors(KafkaError(KafkaError._RESOLVE, "no such host"))
    assert [record.getMessage().split()[1] for record in caplog.records] == ["down", "no"]


def test_the_first_error_that_ends_the_service_is_raised_in_the_loop() -> None:
    errors = ClientErrors()
    errors(KafkaError(KafkaError._AUTHENTICATION, "wrong password"))
    errors(KafkaError(KafkaError._AUTO_OFFSET_RESET, "later"))
    with pytest.raises(PersonMustAct, match="wrong password"):
        errors.raise_any()


def test_a_fatal_error_ends_the_service() -> None:
    errors = ClientErrors()
    errors(KafkaError(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, "by design", fatal=True))
    with pytest.raises(RestartMayHelp):
        errors.raise_any()


def test_an_undelivered_record_ends_the_service() -> None:
    errors = ClientErrors()
    errors.delivery_failed(KafkaError(KafkaError._MSG_TIMED_OUT, "too late"), "predictions")
    with pytest.raises(RestartMayHelp, match="predictions"):
        errors.raise_any()


def test_what_a_person_sets_goes_to_its_client() -> None:
    chosen = settings(
        "kafka.consumer.fetch.wait.max.ms=7", "kafka.producer.compression.type=lz4", "kafka.common.debug="
    )
    assert consumer_properties(chosen)["fetch.wait.max.ms"] == "7"
    assert "compression.type" not in consumer_properties(chosen)
    produced = producer_properties(chosen, 1_000, 2_000)
    assert (produced["compression.type"], produced["batch.size"], produced["message.max.bytes"]) == (
        "lz4",
        1_000,
        2_000,
    )


def test_a_property_that_does_not_exist_is_named() -> None:
    properties = producer_properties(settings("kafka.common.no.such=1"), 1_000, 1_000)
    with pytest.raises(PersonMustAct, match=r"no\.such"):
        new_client(Producer, properties, ClientErrors())


@pytest.mark.parametrize("kind", [Consumer, Producer])
def test_the_clients_take_our_properties(kind: type) -> None:
    properties = consumer_properties(settings()) if kind is Consumer else producer_properties(settings(), 1_000, 2_000)
    client = new_client(kind, properties, ClientErrors())
    assert client is not None
    if kind is Consumer:
        client.close()
