"""The table of faults of docs/reliability.md: a test for each row, named after it, on a real Kafka."""

from __future__ import annotations

import re
import resource
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions

from prototide.service import checkpoints
from prototide.service.topics import TopicSpec, create_topics, wanted_topics
from prototide.service.wire import decode_predictions
from tests.chaos.driver import Chaos
from tests.support.kafka import Broker
from tests.support.service import Service, consume_all, produce, records
from tests.support.stream import until

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]

Named = Callable[[str], str]


@pytest.fixture
def chaos(kafka: str, tmp_path: Path, topic_name: Named) -> Iterator[Chaos]:
    with Chaos(kafka, tmp_path, topic_name) as made:
        yield made


@pytest.fixture
def service(kafka: str, tmp_path: Path, topic_name: Named) -> Iterator[Service]:
    with Service(kafka, tmp_path, topic_name) as made:
        yield made.create_topics()


def test_crash_before_commit_transaction_returns_at_the_broker(chaos: Chaos) -> None:
    chaos.kill_at("journal-sent:4")
    chaos.settle_and_check()


def test_crash_during_the_commit_with_the_answer_lost(chaos: Chaos) -> None:
    for count in (2, 3):
        chaos.kill_at(f"committing:{count}")
    chaos.settle_and_check()


def test_crash_after_the_commit_before_a_checkpoint(chaos: Chaos) -> None:
    chaos.service.overrides.append("checkpoint.interval_s=1000")
    chaos.kill_at("committed:6")
    chaos.settle_and_check()
    assert "replaying steps 1 to" in chaos.service.logged()


def test_crash_in_the_middle_of_a_checkpoint_file(chaos: Chaos) -> None:
    chaos.kill_at("checkpoint-half:30")
    assert list((chaos.service.folder / "checkpoints").glob(".*.partial")), "no half-written file was left"
    chaos.settle_and_check()
    assert not list((chaos.service.folder / "checkpoints").glob(".*.partial"))


def test_crash_during_a_replay(chaos: Chaos) -> None:
    chaos.service.overrides.append("checkpoint.interval_s=1000")
    chaos.kill_at("published:20")
    for count in (1, 15):
        chaos.kill_at(f"replayed-step:{count}")
    chaos.settle_and_check()


def test_crash_before_the_first_commit_with_start_from_latest(service: Service) -> None:
    service.overrides.append("start_from=latest")
    produce(service.settings, records(4))
    service.start(failpoints="genesis:1")
    assert service.wait() == -signal.SIGKILL
    produce(service.settings, records(2, seed=1))
    service.start_ready()
    assert sorted(source_of(service, 2)) == [(0, 2), (1, 2)]
    assert service.terminate() == 0


def test_a_second_instance_started_by_mistake_with_right_or_wrong_settings(chaos: Chaos) -> None:
    chaos.service.start_ready()
    with chaos.service.another("instance.id=mistake", "checkpoint.uri=" + str(chaos.service.folder / "b")) as other:
        assert other.start().wait() == 75
        assert "is alive and owns" in other.last_line()
        assert other.start("core.k_init=7").wait() == 78
        assert "core.k_init is 7" in other.last_line()
    chaos.service.terminate()
    chaos.settle_and_check()


@pytest.mark.parametrize("fault", ["restarts", "is killed", "is away for a while"])
def test_a_broker_that(own_kafka: Broker, tmp_path: Path, topic_name: Named, fault: str) -> None:
    with Chaos(own_kafka.bootstrap_servers, tmp_path, topic_name) as chaos:
        chaos.service.start_ready()
        until(lambda: chaos.service.metric("prototide_steps_total") > 5)
        if fault == "restarts":
            own_kafka.restart()
        else:
            own_kafka.kill()
            if fault != "is killed":
                until(lambda: chaos.service.status("readyz") == 503, 60)
                assert chaos.service.status("livez") == 200
                time.sleep(15)  # the fault itself
            own_kafka.start()
        before = chaos.service.metric("prototide_steps_total")
        until(lambda: chaos.service.metric("prototide_steps_total") > before + 5, 120)
        until(lambda: chaos.service.status("readyz") == 200)
        assert chaos.service.terminate() == 0
        chaos.settle_and_check()


def test_a_broker_that_restarts_under_an_idle_service(own_kafka: Broker, tmp_path: Path, topic_name: Named) -> None:
    with Service(own_kafka.bootstrap_servers, tmp_path, topic_name) as service:
        service.create_topics().start_ready()
        own_kafka.kill()
        until(lambda: service.status("readyz") == 503, 60)
        own_kafka.start()
        until(lambda: service.status("readyz") == 200, 60)
        produce(service.settings, records(4))
        assert len(source_of(service, 4)) == 4
        assert service.terminate() == 0


def recreate(service: Service, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": service.settings.kafka.bootstrap_servers})
    admin.delete_topics([topic])[topic].result()
    until(lambda: topic not in admin.list_topics(timeout=10).topics)

    def made() -> bool:
        try:
            create_topics(service.settings, wanted_topics(service.settings, service.partitions, 1))
        except Exception:
            return False
        return True

    until(made)


@pytest.mark.parametrize("which", ["train", "journal"])
def test_a_topic_that_was_recreated_while_the_service_was_away(service: Service, which: str) -> None:
    produce(service.settings, records(6))
    service.start_ready()
    assert len(source_of(service, 6)) == 6
    assert service.terminate() == 0
    recreate(service, getattr(service.settings.topics, which))
    produce(service.settings, records(6))
    assert service.start().wait() == 78
    assert re.search("re-created.*--fresh", service.last_line())


@pytest.mark.parametrize("which", ["train", "journal"])
def test_a_topic_that_is_recreated_under_the_running_service(service: Service, which: str) -> None:
    produce(service.settings, records(2))
    service.start_ready()
    recreate(service, getattr(service.settings.topics, which))
    produce(service.settings, records(40))
    assert service.wait(60) == 78
    assert re.search("--fresh|prototide topics create", service.last_line())


@pytest.mark.parametrize("which", ["train", "journal", "predictions", "dead_letters"])
def test_a_topic_that_is_deleted_under_the_running_service(service: Service, which: str) -> None:
    produce(service.settings, records(2))
    service.start_ready()
    assert len(source_of(service, 2)) == 2
    name = getattr(service.settings.topics, which)
    admin = AdminClient({"bootstrap.servers": service.settings.kafka.bootstrap_servers})
    admin.delete_topics([name])[name].result()
    if which == "predictions":
        produce(service.settings, records(2))
    assert service.wait(150) == 78
    assert "prototide topics create" in service.last_line()
    assert service.logged().count("is repeated") < 100


def test_train_trimmed_beyond_what_the_replay_needs(service: Service) -> None:
    service.overrides.append("checkpoint.interval_s=1000")
    produce(service.settings, records(20))
    service.start_ready()
    assert len(source_of(service, 20)) == 20
    service.kill()
    trim(service, service.settings.topics.train, 5)
    assert service.start().wait() == 78
    assert re.search("begins at offset 5.*retention", service.last_line())


def test_retention_passes_the_position_of_a_service_that_was_paused(service: Service) -> None:
    produce(service.settings, records(6))
    service.start_ready()
    assert len(source_of(service, 6)) == 6
    service.send_signal(signal.SIGSTOP)
    produce(service.settings, records(40))
    trim(service, service.settings.topics.train, 20)
    service.send_signal(signal.SIGCONT)
    assert service.wait(60) == 78
    assert re.search("retention passed the model's position.*--fresh", service.last_line())


def test_a_journal_trimmed_beyond_what_the_checkpoint_includes(service: Service) -> None:
    service.overrides.append("checkpoint.interval_s=1000")
    service.start_ready()  # a checkpoint of the new model
    produce(service.settings, records(20))
    assert len(source_of(service, 20)) == 20
    service.kill()
    trim(service, service.settings.topics.journal, 3)
    assert service.start().wait() == 78
    assert re.search("journal .* begins at offset 3.*the steps between are lost.*--fresh", service.last_line())


def test_somebody_elses_transaction_hangs_in_the_journal(service: Service) -> None:
    service.start_ready()
    assert service.terminate() == 0
    foreign = Producer(
        {
            "bootstrap.servers": service.settings.kafka.bootstrap_servers,
            "transactional.id": f"foreign-{service.group}",
            "transaction.timeout.ms": 600_000,
        }
    )
    foreign.init_transactions(30)
    foreign.begin_transaction()
    foreign.produce(service.settings.topics.journal, b"not ours")
    foreign.flush(10)
    assert service.start().wait() == 75
    assert re.search("open transaction of somebody else.*start again", service.last_line())
    foreign.abort_transaction(10)
    assert service.start_ready().terminate() == 0


def test_a_journal_whose_first_records_are_gone(service: Service) -> None:
    service.overrides.append("checkpoint.interval_s=1000")
    produce(service.settings, records(20))
    service.start_ready()
    assert len(source_of(service, 20)) == 20
    service.kill()
    for path in (service.folder / "checkpoints").iterdir():
        path.unlink()
    trim(service, service.settings.topics.journal, 3)
    assert service.start().wait() == 78
    assert re.search("genesis was deleted.*--fresh", service.last_line())


def trim(service: Service, topic: str, offset: int) -> None:
    admin = AdminClient({"bootstrap.servers": service.settings.kafka.bootstrap_servers})
    (done,) = admin.delete_records([TopicPartition(topic, 0, offset)]).values()
    done.result()


def test_a_checkpoint_ahead_of_the_journal(service: Service) -> None:
    produce(service.settings, records(6))
    service.start_ready()
    assert len(source_of(service, 6)) == 6
    assert service.terminate() == 0
    folder = service.folder / "checkpoints"
    found, _ = checkpoints.newest(folder)
    assert found is not None
    checkpoints.write(folder, replace(found, step=found.step + 9, journal=10_000), "me")
    assert service.start().wait() == 78
    assert re.search("ahead of journal.*includes offset 9999", service.last_line())


def test_a_journal_record_that_does_not_decode(service: Service) -> None:
    service.start_ready()
    assert service.terminate() == 0
    producer = Producer({"bootstrap.servers": service.settings.kafka.bootstrap_servers})
    producer.produce(service.settings.topics.journal, b"not ours")
    assert producer.flush(10) == 0
    assert service.start("instance.takeover_silence_s=1").wait() == 78
    assert re.search("does not decode.*--fresh", service.last_line())
    service.start_ready("instance.takeover_silence_s=1", options=["--fresh", "--yes"])
    assert service.terminate() == 0


def test_train_with_more_partitions_reads_the_new_ones_from_their_beginning(service: Service) -> None:
    produce(service.settings, records(4))
    service.start_ready()
    assert len(source_of(service, 4)) == 4
    admin = AdminClient({"bootstrap.servers": service.settings.kafka.bootstrap_servers})
    topic = service.settings.topics.train
    admin.create_partitions([NewPartitions(topic, 3)])[topic].result()
    until(lambda: len(admin.list_topics(topic, timeout=10).topics[topic].partitions) == 3)
    produce(service.settings, records(3, seed=2), partitions=3)
    assert (2, 0) in source_of(service, 7)
    service.kill()
    produce(service.settings, records(3, seed=3), partitions=3)
    service.start_ready()
    assert sorted(source_of(service, 10)) == [
        (0, 0),
        (0, 1),
        (0, 2),
        (0, 3),
        (1, 0),
        (1, 1),
        (1, 2),
        (1, 3),
        (2, 0),
        (2, 1),
    ]
    assert service.terminate() == 0


def test_a_journal_with_several_partitions_or_a_retention(service: Service) -> None:
    name = service.settings.topics.journal
    create_topics(service.settings, [TopicSpec(f"{name}-3", 3, 1, 1_000_000)])
    assert service.start(f"topics.journal={name}-3").wait() == 78
    assert "has 3 partitions, it must have 1" in service.last_line()
    create_topics(service.settings, [TopicSpec(f"{name}-r", 1, 1, 1_000_000, {"retention.ms": "1000"})])
    assert service.start(f"topics.journal={name}-r").wait() == 78
    assert re.search("retention.ms=1000.*topics create", service.last_line())


def test_a_compacted_train_topic(service: Service) -> None:
    name = service.settings.topics.train
    create_topics(service.settings, [TopicSpec(f"{name}-c", 1, 1, 1_000_000, {"cleanup.policy": "compact"})])
    assert service.start(f"topics.train={name}-c").wait() == 78
    assert "compact" in service.last_line()


def test_a_store_that_is_unreachable_at_a_checkpoint(service: Service) -> None:
    folder, away = service.folder / "checkpoints", service.folder / "away"
    service.start_ready("checkpoint.interval_s=0.3")
    until(lambda: service.metric("prototide_checkpoint_last_success_timestamp_seconds") > 0)
    folder.rename(away)
    folder.write_text("a file where the folder should be")
    produce(service.settings, records(4))
    until(lambda: service.metric("prototide_checkpoint_failures_total") > 0)
    assert len(source_of(service, 4)) == 4  # it goes on
    assert service.metric("prototide_checkpoint_step") == 0
    folder.unlink()
    away.rename(folder)
    until(lambda: service.metric("prototide_checkpoint_step") > 0)
    assert service.terminate() == 0


def test_a_full_disk_at_a_checkpoint(service: Service) -> None:
    service.start_ready("checkpoint.interval_s=0.3")
    until(lambda: service.metric("prototide_checkpoint_last_success_timestamp_seconds") > 0)
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.prlimit(service.pid, resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))  # of one file
    produce(service.settings, records(4, columns=30_000, rows=2_000))
    until(lambda: service.metric("prototide_checkpoint_failures_total") > 0)
    assert len(source_of(service, 4)) == 4  # it goes on
    assert "File too large" in service.logged()
    resource.prlimit(service.pid, resource.RLIMIT_FSIZE, unlimited)
    until(lambda: service.metric("prototide_checkpoint_step") > 0)
    assert service.terminate() == 0
    left = sorted(path.suffix for path in (service.folder / "checkpoints").rglob("*") if path.is_file())
    assert ".partial" not in left, left


def test_sigterm_in_the_middle_of_a_step(chaos: Chaos) -> None:
    chaos.service.start_ready()
    until(lambda: chaos.service.metric("prototide_steps_total") > 10)
    started = time.monotonic()
    assert chaos.service.terminate() == 0
    assert time.monotonic() - started < chaos.settings.shutdown.grace_s
    chaos.settle_and_check()


def test_settings_that_change_the_model_are_refused_until_fresh(service: Service) -> None:
    produce(service.settings, records(6))
    service.start_ready()
    assert len(source_of(service, 6)) == 6
    assert service.terminate() == 0
    assert service.start("core.k_init=5").wait() == 78
    assert re.search("core.k_init is 5.*--fresh", service.last_line())
    service.start_ready("core.k_init=5", options=["--fresh", "--yes"])
    assert len(source_of(service, 12)) == 12  # it starts at the earliest record again
    assert service.terminate() == 0
    assert list((service.folder / "checkpoints").glob("before-*.safetensors"))
    assert service.start_ready("core.k_init=5").terminate() == 0


def test_a_skipped_record_is_a_dead_letter_in_every_replay(service: Service) -> None:
    service.overrides.append("checkpoint.interval_s=1000")
    produce(service.settings, records(6))
    name = service.settings.topics.train
    service.start_ready(options=["--skip", f"{name}/1/1"])
    assert (1, 1) not in source_of(service, 5)
    service.kill()
    service.start_ready()
    produce(service.settings, records(1, seed=1))
    assert len(source_of(service, 6)) == 6
    (letter,) = consume_all(service.settings, service.settings.topics.dead_letters, 1)
    assert dict(letter.headers() or ())["dlq.reason"] == b"poison"
    assert service.terminate() == 0


def source_of(service: Service, count: int) -> list[tuple[int, int]]:
    """(partition, offset) of each prediction, once `count` are there."""
    messages = consume_all(service.settings, service.settings.topics.predictions, count)
    return [decode_predictions(message.value()).source[1:] for message in messages]


def test_a_storm_of_dead_letters_is_told_and_stops_nothing(service: Service) -> None:
    service.overrides += ["dead_letters.window=50"]
    service.start_ready()
    produce(service.settings, [b"bad"] * 60)
    until(lambda: service.status("readyz") == 503)
    assert service.metric("prototide_dead_letter_storm") == 1
    assert service.metric("prototide_ready") == 0
    assert len(consume_all(service.settings, service.settings.topics.dead_letters, 60)) == 60
    produce(service.settings, records(60))
    until(lambda: service.status("readyz") == 200)
    assert service.metric("prototide_dead_letter_storm") == 0
    assert len(source_of(service, 60)) == 60
    assert service.terminate() == 0
