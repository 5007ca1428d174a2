"""What every Kafka client of the service shares: its properties, and what an error means for the caller.

Errors are told apart once, here: those that the client outlives by itself (a broker is away) are logged and waited
out; those that a person must mend end the service with exit code 78; any other that cannot be waited out with 75.
"""

from __future__ import annotations

import logging
import math
import time
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from prototide.service.errors import NEW_MODEL, PersonMustAct, RestartMayHelp, ServiceError
from prototide.service.settings import Settings

log = logging.getLogger(__name__)
client_log = logging.getLogger("prototide.librdkafka")
client_log.addFilter(lambda record: not record.getMessage().startswith(("FAIL", "ERROR")))  # `ClientErrors` tells them

TRANSACTION_TIMEOUT_MS = 60_000  # after it the brokers abort what a dead or paused owner left open
REQUEST_SECONDS = 30.0  # longest wait for the answer to one question
QUEUE_KIBIBYTES = 65_536  # inside each client, whatever the lag
REPEAT_INTERVAL_SECONDS = 10.0  # a broker that is away fails several times a second

_GRANT = "give the service's user the right, or correct kafka.common.sasl.*"
_CREATE = "`prototide topics create` makes missing topics"
_RAISE = "set the topic's max.message.bytes to limits.prediction_bytes"

# What only a person can mend, and how.
_ADVICE = {
    KafkaError._AUTHENTICATION: "correct kafka.common.sasl.*",
    KafkaError.SASL_AUTHENTICATION_FAILED: "correct kafka.common.sasl.*",
    KafkaError.UNSUPPORTED_SASL_MECHANISM: "correct kafka.common.sasl.mechanisms",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: _GRANT,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: _GRANT,
    KafkaError.GROUP_AUTHORIZATION_FAILED: _GRANT,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: _GRANT,
    KafkaError.INVALID_TRANSACTION_TIMEOUT: "lower kafka.producer.transaction.timeout.ms to the brokers' limit",
    KafkaError.UNKNOWN_TOPIC_OR_PART: _CREATE,
    KafkaError._UNKNOWN_TOPIC: _CREATE,
    KafkaError._UNKNOWN_PARTITION: _CREATE,
    KafkaError.MSG_SIZE_TOO_LARGE: _RAISE,
    KafkaError.RECORD_LIST_TOO_LARGE: _RAISE,
    KafkaError._AUTO_OFFSET_RESET: f"the topic's retention passed the model's position: {NEW_MODEL}",
    KafkaError._INVALID_ARG: "correct the librdkafka property in kafka.common, kafka.consumer or kafka.producer",
}

# Somebody else writes as this service now.
_FENCED = {
    KafkaError._FENCED,
    KafkaError.PRODUCER_FENCED,
    KafkaError.INVALID_PRODUCER_EPOCH,
    KafkaError.INVALID_PRODUCER_ID_MAPPING,
}


def service_error(error: KafkaError, doing: str) -> ServiceError:
    """What ends the service, by what the caller must do about `error`."""
    what = f"{doing}: {error.str()} ({error.name()})"
    if error.code() in _ADVICE:
        return PersonMustAct(what, _ADVICE[error.code()])
    if error.code() in _FENCED:
        return RestartMayHelp(
            f"{what}: another instance with this kafka.group_id took over, or this one was silent for longer than its "
            "transaction may last",
            "start again: it does not disturb an owner that is alive",
        )
    return RestartMayHelp(what, "start again; if it persists, look at the brokers")


class ClientErrors:
    """What the clients' callbacks were told: exceptions raised inside callbacks would be swallowed."""

    def __init__(self) -> None:
        self.brokers_up = True
        self._ending: ServiceError | None = None
        self._told: dict[int, float] = {}  # error code -> when it was logged last

    def __call__(self, error: KafkaError) -> None:
        """Takes an error of a client: librdkafka's ``error_cb``, or an error among consumed messages."""
        if error.fatal() or error.code() in _ADVICE:
            self._ending = self._ending or service_error(error, "Kafka client")
            return
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self.brokers_up = False
        now = time.monotonic()
        if now - self._told.get(error.code(), -math.inf) >= REPEAT_INTERVAL_SECONDS:
            self._told[error.code()] = now
            log.warning("Kafka: %s (%s); the client goes on trying", error.str(), error.name())

    def delivery_failed(self, error: KafkaError, topic: str) -> None:
        """Takes the error of a delivery report: the step cannot be delivered any more."""
        self._ending = self._ending or service_error(error, f"a record for {topic} was not delivered")

    def raise_any(self) -> None:
        """Raises the first error that ends the service."""
        if self._ending is not None:
            raise self._ending


def consumer_properties(settings: Settings) -> dict[str, Any]:
    """Of every consumer: what a person set, then what the guarantees rest on."""
    return (
        _shared()
        | {"fetch.wait.max.ms": 5, "queued.max.messages.kbytes": QUEUE_KIBIBYTES}
        | settings.kafka.properties("consumer")
        | _identity(settings)
        | {
            "group.id": settings.kafka.group_id,
            "isolation.level": "read_committed",
            "auto.offset.reset": "error",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "enable.partition.eof": True,
            "allow.auto.create.topics": False,
        }
    )


def producer_properties(settings: Settings, smallest_topic_bytes: int, largest_topic_bytes: int) -> dict[str, Any]:
    """Of the producer of outputs; the two sizes are the extremes of their topics' ``max.message.bytes``."""
    own = {
        "linger.ms": 5,
        "queue.buffering.max.kbytes": max(QUEUE_KIBIBYTES, 2 * largest_topic_bytes // 1024),
        "message.timeout.ms": int(settings.kafka.transaction_deadline_s * 1000),
        "batch.size": min(1_000_000, smallest_topic_bytes),  # brokers check batches, not messages
    }
    return (
        _shared()
        | own
        | settings.kafka.properties("producer")
        | _identity(settings)
        | {
            "acks": "all",
            "enable.idempotence": True,
            "message.max.bytes": largest_topic_bytes,
        }
    )


def transactional_properties(settings: Settings, smallest_topic_bytes: int, largest_topic_bytes: int) -> dict[str, Any]:
    """The same of the producer whose outputs are visible with their journal record or not at all."""
    plain = producer_properties(settings, smallest_topic_bytes, largest_topic_bytes)
    if "message.timeout.ms" not in settings.kafka.properties("producer"):
        del plain["message.timeout.ms"]  # the client takes the transaction's time-out
    return {"transaction.timeout.ms": TRANSACTION_TIMEOUT_MS} | plain | {"transactional.id": settings.kafka.group_id}


def admin_client(settings: Settings, errors: ClientErrors) -> AdminClient:
    """A client that looks at topics and makes them."""
    client: AdminClient = new_client(
        AdminClient, _shared() | settings.kafka.properties("common") | _identity(settings), errors
    )
    return client


def new_client(kind: Any, properties: dict[str, Any], errors: ClientErrors) -> Any:
    """A client of `kind` whose errors and log lines come to us; raises PersonMustAct for properties it refuses."""
    try:
        return kind(properties | {"error_cb": errors}, logger=client_log)
    except KafkaException as refused:
        raise service_error(refused.args[0], f"Kafka {kind.__name__}") from None


def _shared() -> dict[str, Any]:
    return {
        "retry.backoff.ms": 2,
        "reconnect.backoff.max.ms": 1000,
        "log.connection.close": False,
    }


def _identity(settings: Settings) -> dict[str, Any]:
    return {"bootstrap.servers": settings.kafka.bootstrap_servers, "client.id": settings.instance.id}
