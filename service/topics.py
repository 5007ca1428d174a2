"""The service's topics: what they must be like, making them, looking at them before the first record is read."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ClusterMetadata,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from prototide.service.clients import REQUEST_SECONDS, ClientErrors, admin_client, service_error
from prototide.service.errors import PersonMustAct, RestartMayHelp
from prototide.service.settings import Settings

log = logging.getLogger(__name__)

TRY_TIMEOUT_SECONDS = 1.0
TELL_INTERVAL_SECONDS = 5.0
# A question that the brokers do not answer, now or ever: missing rights, or an old version.
_REFUSALS = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.UNSUPPORTED_VERSION,
    KafkaError._UNSUPPORTED_FEATURE,
}
RECORD_OVERHEAD_BYTES = 64 * 1024  # key, headers, framing: what max.message.bytes counts beside the value


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic as the service needs it."""

    name: str
    partitions: int
    replication_factor: int
    max_message_bytes: int
    config: Mapping[str, str] = field(default_factory=dict)  # what else its settings must be


# Every step counts, for ever: nothing of the journal may be deleted.
JOURNAL_CONFIG = {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"}


@dataclass(frozen=True, slots=True)
class Topology:
    """The topics as the brokers have them."""

    train_partitions: tuple[int, ...]
    partitions: Mapping[str, int]  # topic -> how many
    ids: Mapping[str, str]  # topic -> id; empty where the brokers cannot tell
    max_message_bytes: Mapping[str, int]  # topic of outputs -> bytes


def wanted_topics(settings: Settings, partitions: int, replication_factor: int) -> list[TopicSpec]:
    """The topics that `prototide topics create` makes."""
    predictions = int(settings.limits.prediction_bytes)
    train = max(int(settings.limits.record_bytes) + RECORD_OVERHEAD_BYTES, 1_048_588)  # Kafka's default at least
    sizes = {
        settings.topics.train: train,
        settings.topics.predictions: predictions,
        settings.topics.dead_letters: train,
    }
    specs = [TopicSpec(name, partitions, replication_factor, size) for name, size in sizes.items()]
    if settings.delivery == "exactly_once":
        specs.append(TopicSpec(settings.topics.journal, 1, replication_factor, 1_048_588, JOURNAL_CONFIG))
    return specs


def create_topics(settings: Settings, specs: Iterable[TopicSpec]) -> dict[str, str]:
    """Makes what is missing, raises ``max.message.bytes`` where it is too small; topic -> what was done."""
    errors = ClientErrors()
    admin = admin_client(settings, errors)
    found = _partitions(wait_for_brokers(settings, admin, errors, lambda: False))
    done = {}
    for spec in specs:
        if spec.name in found:
            changed = _correct(admin, spec)
            done[spec.name] = ", ".join([f"exists with {_partitions_text(found[spec.name])}", *changed])
        else:
            _create(admin, spec)
            done[spec.name] = f"created with {_partitions_text(spec.partitions)}"
    return done


def inspect_topics(settings: Settings, give_up: Callable[[], bool]) -> Topology:
    """Waits for the brokers and looks at the topics; raises PersonMustAct for what the service cannot run on."""
    errors = ClientErrors()
    admin = admin_client(settings, errors)
    cluster = wait_for_brokers(settings, admin, errors, give_up)
    found = _partitions(cluster)
    topics = settings.topics
    names = [topics.train, topics.predictions, topics.dead_letters]
    exactly_once = settings.delivery == "exactly_once"
    if exactly_once:
        names.append(topics.journal)
    missing = [name for name in names if name not in found]
    if missing:
        raise PersonMustAct(
            f"there is no topic {', '.join(missing)} at {settings.kafka.bootstrap_servers}",
            "`prototide topics create` makes the topics (or give the service's user the right to see them)",
        )
    outputs = (topics.predictions, topics.dead_letters, *([topics.journal] if exactly_once else []))
    sizes = dict.fromkeys(outputs, int(settings.limits.prediction_bytes))
    ids: dict[str, str] = {}
    if cluster.controller_id in cluster.brokers:  # the embedded one has none and lets each question time out
        sizes |= {name: size for name in outputs if (size := _max_message_bytes(admin, name)) is not None}
        ids = topic_ids(admin, [topics.train, topics.journal] if exactly_once else [topics.train])
    if exactly_once:
        _check_exactly_once(admin, settings, found, ids)
    if sizes[topics.predictions] < int(settings.limits.prediction_bytes):
        raise PersonMustAct(
            f"topic {topics.predictions} takes records of {sizes[topics.predictions]} bytes, "
            f"limits.prediction_bytes is {int(settings.limits.prediction_bytes)}",
            "`prototide topics create` raises the topic's max.message.bytes",
        )
    return Topology(
        train_partitions=tuple(range(found[topics.train])),
        partitions={name: found[name] for name in names},
        ids=ids,
        max_message_bytes=sizes,
    )


def wait_for_brokers(
    settings: Settings, admin: AdminClient, errors: ClientErrors, give_up: Callable[[], bool]
) -> ClusterMetadata:
    """What the first broker that answers knows; raises RestartMayHelp after the start-up time-out."""
    brokers, timeout = settings.kafka.bootstrap_servers, settings.kafka.startup_timeout_s
    start = told = time.monotonic()
    while True:
        try:
            return admin.list_topics(timeout=TRY_TIMEOUT_SECONDS)
        except KafkaException as failed:
            why = failed.args[0].str()
        admin.poll(0)  # what its callbacks have to tell, such as a refused password
        errors.raise_any()
        now = time.monotonic()
        if now - start >= timeout or give_up():
            raise RestartMayHelp(
                f"no broker answers at {brokers} after {now - start:.0f} s: {why}",
                "see that the brokers are up and kafka.bootstrap_servers is right, then start again",
            )
        if now - told >= TELL_INTERVAL_SECONDS:
            told = now
            log.warning("no broker answers at %s yet: %s (%.0f s of %.0f s)", brokers, why, now - start, timeout)


def _partitions(cluster: ClusterMetadata) -> dict[str, int]:
    """Topic -> how many partitions."""
    return {name: len(topic.partitions) for name, topic in cluster.topics.items() if topic.error is None}


def _create(admin: AdminClient, spec: TopicSpec) -> None:
    topic = NewTopic(
        spec.name,
        num_partitions=spec.partitions,
        replication_factor=spec.replication_factor,
        config={"max.message.bytes": str(spec.max_message_bytes), **spec.config},
    )
    try:
        _answer(admin.create_topics([topic], request_timeout=REQUEST_SECONDS))
    except KafkaException as failed:
        error: KafkaError = failed.args[0]
        if error.code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise _cannot(f"create topic {spec.name}", error) from None


def _correct(admin: AdminClient, spec: TopicSpec) -> list[str]:
    """Sets what is not as the service needs it; one phrase for each change."""
    resource = ConfigResource(ResourceType.TOPIC, spec.name)
    try:
        config = _answer(admin.describe_configs([resource], request_timeout=REQUEST_SECONDS))
        wanted = {name: value for name, value in spec.config.items() if config[name].value != value}
        changed = [f"{name} set to {value}" for name, value in wanted.items()]
        if int(config["max.message.bytes"].value) < spec.max_message_bytes:
            wanted["max.message.bytes"] = str(spec.max_message_bytes)
            changed.append(f"max.message.bytes raised to {spec.max_message_bytes}")
        if not wanted:
            return []
        for name, value in wanted.items():
            resource.add_incremental_config(ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET))
        _answer(admin.incremental_alter_configs([resource], request_timeout=REQUEST_SECONDS))
    except KafkaException as failed:
        raise _cannot(f"correct the settings of topic {spec.name}", failed.args[0]) from None
    return changed


def _partitions_text(count: int) -> str:
    return f"{count} partition{'s' * (count != 1)}"


def _check_exactly_once(
    admin: AdminClient, settings: Settings, partitions: Mapping[str, int], ids: Mapping[str, str]
) -> None:
    """Raises PersonMustAct for what the journalled protocol cannot run on."""
    train, journal = settings.topics.train, settings.topics.journal
    if train not in ids or journal not in ids:
        raise PersonMustAct(
            f"the brokers do not tell the ids of the topics {train} and {journal}: they are too old, or embedded, or "
            "deny Describe on them",
            "grant it, or set delivery=at_least_once",
        )
    if partitions[journal] != 1:
        raise PersonMustAct(
            f"journal {journal} has {partitions[journal]} partitions, it must have 1",
            "name another one by topics.journal, which `prototide topics create` makes",
        )
    config = topic_config(admin, journal)
    wrong = [f"{name}={config[name]}" for name, value in JOURNAL_CONFIG.items() if config[name] != value]
    if wrong:
        raise PersonMustAct(
            f"journal {journal} has {', '.join(wrong)}: its records must stay for ever",
            "`prototide topics create` corrects it",
        )
    if "compact" in topic_config(admin, train)["cleanup.policy"]:
        raise PersonMustAct(
            f"topic {train} has cleanup.policy={topic_config(admin, train)['cleanup.policy']}: compaction deletes "
            "records that a replay needs",
            "set its cleanup.policy=delete",
        )


def topic_config(admin: AdminClient, name: str) -> dict[str, str]:
    """The topic's settings; raises PersonMustAct where the brokers do not tell."""
    resource = ConfigResource(ResourceType.TOPIC, name)
    try:
        config = _answer(admin.describe_configs([resource], request_timeout=REQUEST_SECONDS))
    except KafkaException as failed:
        raise service_error(failed.args[0], f"asking for the settings of topic {name} (DescribeConfigs)") from None
    return {key: entry.value for key, entry in config.items()}


def _max_message_bytes(admin: AdminClient, name: str) -> int | None:
    """The topic's limit; None where the brokers do not tell (missing rights)."""
    try:
        resource = ConfigResource(ResourceType.TOPIC, name)
        config = _answer(admin.describe_configs([resource], request_timeout=REQUEST_SECONDS))
        return int(config["max.message.bytes"].value)
    except KafkaException as failed:
        _untold(failed.args[0], f"max.message.bytes of topic {name}")
        return None


def topic_ids(admin: AdminClient, names: list[str]) -> dict[str, str]:
    """Topic -> id, of those that the brokers tell."""
    ids = {}
    for name, future in admin.describe_topics(TopicCollection(names), request_timeout=REQUEST_SECONDS).items():
        try:
            ids[name] = str(future.result().topic_id)
        except KafkaException as failed:
            _untold(failed.args[0], f"the id of topic {name}")
    return ids


def _untold(error: KafkaError, what: str) -> None:
    """Goes on without an answer that the brokers refuse; raises ServiceError for one that did not come."""
    if error.code() not in _REFUSALS:
        raise service_error(error, f"asking for {what}")
    log.info("the brokers do not tell %s: %s", what, error.str())


def _answer(futures: Mapping[Any, Any]) -> Any:
    (future,) = futures.values()
    return future.result()


def _cannot(what: str, error: KafkaError) -> PersonMustAct:
    known = service_error(error, f"cannot {what}")
    if isinstance(known, PersonMustAct):
        return known
    return PersonMustAct(known.what, "mend that, or let an administrator of the cluster make the topics")
