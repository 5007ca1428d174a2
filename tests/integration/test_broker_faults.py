"""A broker that stops, dies and comes back under the service."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from prototide.service.wire import decode_predictions
from tests.support.kafka import Broker
from tests.support.service import Service, consume_all, produce, records
from tests.support.stream import until

pytestmark = pytest.mark.kafka


@pytest.mark.parametrize("fault", ["stop", "kill"])
def test_a_broker_that_comes_back_finds_the_service_waiting(
    own_kafka: Broker, tmp_path: Path, topic_name: Callable[[str], str], fault: str
) -> None:
    with Service(own_kafka.bootstrap_servers, tmp_path, topic_name) as service:
        service.create_topics()
        produce(service.settings, records(10))
        service.start_ready()
        until(lambda: service.metric("prototide_records_total") == 10)
        getattr(own_kafka, fault)()
        until(lambda: service.status("readyz") == 503, 60)
        assert service.status("livez") == 200
        own_kafka.start()
        until(lambda: service.status("readyz") == 200, 60)
        produce(service.settings, records(10, seed=1))
        until(lambda: service.metric("prototide_records_total") == 20, 60)
        assert service.terminate() == 0
        sent = consume_all(service.settings, service.settings.topics.predictions, 20)
        assert len({decode_predictions(message.value()).source for message in sent}) == len(sent) == 20


def test_a_service_whose_broker_is_away_can_be_stopped(
    own_kafka: Broker, tmp_path: Path, topic_name: Callable[[str], str]
) -> None:
    with Service(own_kafka.bootstrap_servers, tmp_path, topic_name, "shutdown.grace_s=5") as service:
        service.create_topics().start_ready()
        own_kafka.kill()
        until(lambda: service.status("readyz") == 503, 60)
        service.send_signal(signal.SIGTERM)
        assert service.wait(15) == 0


def test_topics_outlive_a_restart_of_the_broker(
    own_kafka: Broker, tmp_path: Path, topic_name: Callable[[str], str]
) -> None:
    service = Service(own_kafka.bootstrap_servers, tmp_path, topic_name).create_topics()
    produce(service.settings, [b"kept"])
    own_kafka.restart()
    assert [message.value() for message in consume_all(service.settings, service.settings.topics.train, 1)] == [b"kept"]
