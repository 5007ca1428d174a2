from __future__ import annotations

import time

import pytest
from confluent_kafka import KafkaError

from prototide.service.clients import ClientErrors, admin_client
from prototide.service.demo_feed import embedded_broker
from prototide.service.errors import PersonMustAct, RestartMayHelp
from prototide.service.settings import Settings, load
from prototide.service.topics import _untold, inspect_topics, wait_for_brokers, wanted_topics
from tests.support.kafka import free_port

NAMES = ("train", "predictions", "dead-letters")


def settings(brokers: str, *overrides: str) -> Settings:
    return load(None, [f"kafka.bootstrap_servers={brokers}", *overrides], {})


def test_topics_take_what_the_limits_allow() -> None:
    chosen = settings("-", "topics.train=t", "limits.record_bytes=4MiB", "limits.prediction_bytes=12MiB")
    sizes = {spec.name: spec.max_message_bytes for spec in wanted_topics(chosen, partitions=4, replication_factor=1)}
    assert sizes["predictions"] == 12 * 2**20
    assert sizes["t"] > 4 * 2**20
    assert sizes["dead-letters"] > 4 * 2**20


def test_no_broker_within_the_time_is_worth_a_restart() -> None:
    brokers = f"127.0.0.1:{free_port()}"
    chosen = settings(brokers, "kafka.startup_timeout_s=0.5")
    errors = ClientErrors()
    with pytest.raises(RestartMayHelp, match=brokers) as error:
        wait_for_brokers(chosen, admin_client(chosen, errors), errors, lambda: False)
    assert error.value.exit_code == 75


def test_waiting_ends_when_asked_to() -> None:
    chosen = settings(f"127.0.0.1:{free_port()}")
    errors = ClientErrors()
    started = time.monotonic()
    with pytest.raises(RestartMayHelp):
        wait_for_brokers(chosen, admin_client(chosen, errors), errors, lambda: True)
    assert time.monotonic() - started < 10


def test_missing_topics_are_named_with_the_command_that_makes_them() -> None:
    with embedded_broker(["train"]) as brokers, pytest.raises(PersonMustAct) as error:
        inspect_topics(settings(brokers), lambda: False)
    assert "predictions, dead-letters" in str(error.value)
    assert "prototide topics create" in str(error.value)


def test_a_broker_that_cannot_tell_sizes_and_ids_is_enough() -> None:
    with embedded_broker(NAMES) as brokers:
        topology = inspect_topics(settings(brokers, "delivery=at_least_once"), lambda: False)
    assert topology.train_partitions == (0, 1, 2, 3)
    assert topology.partitions == dict.fromkeys(NAMES, 4)
    assert topology.ids == {}


def test_a_broker_without_ids_cannot_be_exactly_once() -> None:
    with embedded_broker([*NAMES, "prototide.journal"]) as brokers, pytest.raises(PersonMustAct, match="at_least_once"):
        inspect_topics(settings(brokers), lambda: False)


def test_a_question_without_an_answer_may_be_asked_again_one_that_is_refused_is_not() -> None:
    _untold(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED), "it")
    with pytest.raises(RestartMayHelp, match="asking for it"):
        _untold(KafkaError(KafkaError._TRANSPORT), "it")
