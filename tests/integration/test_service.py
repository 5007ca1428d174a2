"""`prototide run` as a process on a real Kafka."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from prototide.service import checkpoints
from prototide.service.wire import Predictions, decode_predictions
from tests.support.kafka import free_port
from tests.support.service import Service, consume_all, produce, records
from tests.support.stream import until

pytestmark = pytest.mark.kafka

Named = Callable[[str], str]


@pytest.fixture
def service(kafka: str, tmp_path: Path, topic_name: Named) -> Iterator[Service]:
    with Service(kafka, tmp_path, topic_name) as made:
        yield made


def predictions_of(service: Service, count: int) -> list[Predictions]:
    messages = consume_all(service.settings, service.settings.topics.predictions, count)
    return [decode_predictions(message.value()) for message in messages]


def processed(service: Service, count: int) -> Callable[[], bool]:
    return lambda: service.metric("prototide_records_total") >= count


def test_every_record_is_predicted_once_and_the_accuracy_is_true(service: Service) -> None:
    service.create_topics()
    produce(service.settings, records(100))
    service.start_ready()
    produce(service.settings, records(50, seed=1))
    until(processed(service, 150))
    told = {
        name: service.metric(f"prototide_{name}_total")
        for name in ("prequential_scored", "prequential_correct", "rows_predicted", "rows_learned")
    }
    until(lambda: service.metric("prototide_consumer_lag_records") == 0)
    assert service.terminate() == 0, service.logged()

    sent = predictions_of(service, 150)
    assert len({each.source for each in sent}) == len(sent) == 150
    pairs = [(p, t) for each in sent for p, t in zip(each.labels, each.truth or [], strict=True)]
    assert told["prequential_scored"] == told["rows_predicted"] == told["rows_learned"] == len(pairs) == 3000
    assert told["prequential_correct"] == sum(p == t for p, t in pairs)
    assert told["prequential_correct"] > 2000
    assert all(each.ids == list(range(20)) for each in sent)
    for partition in (0, 1):
        mine = [(each.source[2], each.step) for each in sent if each.source[1] == partition]
        assert mine == sorted(mine)


def test_a_malformed_record_between_good_ones_costs_only_itself(service: Service) -> None:
    service.create_topics()
    good = records(4)
    produce(service.settings, [good[0], b"\x00garbage", good[1], good[2][:-5], good[3], b""], partitions=1)
    service.start_ready()
    until(processed(service, 6))
    assert service.metric("prototide_rows_learned_total") == 60
    assert service.terminate() == 0
    assert sorted(each.source[2] for each in predictions_of(service, 3)) == [0, 2, 4]
    letters = consume_all(service.settings, service.settings.topics.dead_letters, 3)
    by_offset = {dict(letter.headers() or ())["dlq.offset"]: letter for letter in letters}
    assert {offset: dict(letter.headers() or ())["dlq.reason"] for offset, letter in by_offset.items()} == {
        b"1": b"decode",
        b"3": b"decode",
        b"5": b"empty",
    }
    assert by_offset[b"1"].value() == b"\x00garbage"


def test_after_kill_9_no_record_is_left_unlearned(service: Service) -> None:
    service.create_topics()
    service.overrides += ["checkpoint.interval_s=0.2", "batch.max_rows=100"]
    produce(service.settings, records(400))
    service.start_ready()
    until(lambda: service.metric("prototide_checkpoint_step") >= 3, 60)
    service.kill()
    before, skipped = checkpoints.newest(service.folder / "checkpoints")
    assert before is not None
    assert skipped == []
    produce(service.settings, records(40, seed=1))
    service.start_ready()
    assert f"resumed from the checkpoint of step {before.step}" in service.logged()
    sent = predictions_of(service, 440)
    assert service.terminate() == 0

    after, _ = checkpoints.newest(service.folder / "checkpoints")
    assert after is not None
    assert after.positions == {service.settings.topics.train: {0: 220, 1: 220}}
    # Learned exactly once each, by the model that goes on: what the killed process learned later was forgotten with it.
    assert learned_rows(after) == 440 * 20
    assert len({each.source for each in sent}) == len(sent) == len(predictions_of(service, 440)) == 440


def learned_rows(checkpoint: checkpoints.Checkpoint) -> int:
    from prototide.core import FastKMeansClassifier

    model = FastKMeansClassifier.from_state(checkpoint.arrays, checkpoint.model)
    return int(model._fitted.engine.rows_learned)


def test_sigterm_ends_with_a_checkpoint_and_the_next_start_repeats_nothing(service: Service) -> None:
    service.create_topics()
    produce(service.settings, records(10))
    service.start_ready()
    until(processed(service, 10))
    assert service.terminate() == 0
    found, _ = checkpoints.newest(service.folder / "checkpoints")
    assert found is not None
    assert found.positions == {service.settings.topics.train: {0: 5, 1: 5}}
    service.start_ready()
    produce(service.settings, records(1))
    until(processed(service, 1))
    service.send_signal(signal.SIGINT)
    assert service.wait() == 0
    assert len(predictions_of(service, 11)) == 11


def test_a_service_that_starts_at_latest_keeps_that_start_through_a_crash(service: Service) -> None:
    service.create_topics()
    produce(service.settings, records(2))
    service.overrides.append("start_from=latest")
    service.start_ready()
    service.kill()  # the genesis keeps the start positions
    produce(service.settings, records(2, seed=1))
    service.start_ready()
    assert sorted(each.source[1:] for each in predictions_of(service, 2)) == [(0, 1), (1, 1)]
    assert service.terminate() == 0


def test_a_frozen_model_predicts_and_learns_nothing(service: Service) -> None:
    service.create_topics()
    produce(service.settings, records(10))
    service.start_ready()
    until(processed(service, 10))
    assert service.terminate() == 0
    service.start_ready("learn=false")
    produce(service.settings, records(4))
    until(processed(service, 4))
    assert service.metric("prototide_rows_learned_total") == 0
    assert service.metric("prototide_rows_predicted_total") == 80
    assert service.terminate() == 0
    assert len(predictions_of(service, 14)) == 14


def test_json_predictions_are_read_like_the_others(service: Service) -> None:
    service.create_topics()
    service.overrides.append("predictions.format=json")
    produce(service.settings, records(2))
    service.start_ready()
    until(processed(service, 2))
    assert service.terminate() == 0
    (message, *_) = consume_all(service.settings, service.settings.topics.predictions, 2)
    assert (message.value() or b"").startswith(b"{")
    assert len(predictions_of(service, 2)[0].labels) == 20


def last_line(service: Service) -> str:
    return service.logged().rstrip().splitlines()[-1]


def test_missing_topics_are_exit_78_and_the_command_that_makes_them(service: Service) -> None:
    assert service.start().wait() == 78
    assert "prototide topics create" in last_line(service)
    assert service.settings.topics.train in last_line(service)


def test_an_unreachable_broker_is_not_ready_then_exit_75(tmp_path: Path, topic_name: Named) -> None:
    address = f"127.0.0.1:{free_port()}"
    with Service(address, tmp_path, topic_name, "kafka.startup_timeout_s=8") as service:
        service.start()
        until(lambda: service.status("readyz") == 503, 30)
        assert service.status("livez") == 200
        until(lambda: "no broker answers" in service.logged(), 30)
        assert service.wait() == 75
        assert address in last_line(service)


def test_a_service_that_waits_for_brokers_can_be_stopped(tmp_path: Path, topic_name: Named) -> None:
    with Service(f"127.0.0.1:{free_port()}", tmp_path, topic_name) as service:
        service.start()
        until(lambda: service.status("readyz") == 503, 30)
        assert service.terminate() == 0


def test_a_checkpoint_made_with_other_settings_is_exit_78_and_says_which(service: Service) -> None:
    service.create_topics().start_ready()
    assert service.terminate() == 0
    assert service.start("core.k_init=5").wait() == 78
    assert "core.k_init is 5, it was 3" in last_line(service)


def test_a_wrong_setting_is_exit_78_before_anything_else(service: Service) -> None:
    assert service.start("batch.max_rows=none").wait() == 78
    assert "batch.max_rows" in last_line(service)


def test_a_predictions_topic_for_small_records_only_is_exit_78(service: Service) -> None:
    from prototide.service.topics import TopicSpec, create_topics

    topics: Any = service.settings.topics
    create_topics(service.settings, [TopicSpec(topics.predictions, 1, 1, 1_000_000)])
    service.create_topics_but(topics.predictions)
    assert service.start().wait() == 78
    assert "max.message.bytes" in last_line(service)
    assert "raised" in create_topics(service.settings, [TopicSpec(topics.predictions, 1, 1, 2**24)])[topics.predictions]
    assert service.start_ready().terminate() == 0
