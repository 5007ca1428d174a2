"""Transactions: outputs and journal records that are visible together, once, or not at all.

What an error means for the caller is decided here, once:

    retriable, timed out    the same call again, in slices, until `kafka.transaction_deadline_s`
    abortable               abort, then the same records again
    fenced, fatal           the process ends with 75: only its successor may write
    what a person must mend the process ends with 78

No consumer offsets take part: the journal holds the positions.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from prototide.service import failpoints
from prototide.service.broker import SLICE_SECONDS, Output
from prototide.service.clients import ClientErrors, new_client, service_error
from prototide.service.errors import PersonMustAct, RestartMayHelp, ServiceError

log = logging.getLogger(__name__)

CALL_SECONDS = 2.0  # longest wait inside one transactional call: the deadline and being asked to stop are seen between
MOST_ABORTS = 5  # of one transaction; the first one after an abort may itself fail


class _Deadline(NamedTuple):
    setting: str
    seconds: float
    at: float  # monotonic

    @classmethod
    def of(cls, setting: str, seconds: float) -> _Deadline:
        return cls(setting, seconds, time.monotonic() + seconds)


class _Abort(Exception):  # noqa: N818 - what to do, not what happened
    """The transaction must be aborted; `error` says why."""

    def __init__(self, error: KafkaError) -> None:
        super().__init__(error.str())
        self.error = error


class TransactionalSink:
    """The producer of outputs and journal records; one thread uses it, one transaction is open at a time."""

    def __init__(
        self, properties: dict[str, object], errors: ClientErrors, deadline_seconds: float, give_up: Callable[[], bool]
    ) -> None:
        """`give_up` says when to wait for brokers no longer."""
        self._errors = errors
        self._deadline_seconds = deadline_seconds
        self._give_up = give_up
        self._producer: Producer = new_client(Producer, properties, errors)

    def fence(self, deadline_seconds: float) -> None:
        """Ends whatever earlier owners of the transactional id had open; from now on they cannot write."""
        deadline = _Deadline.of("kafka.startup_timeout_s", deadline_seconds)
        self._for_good(self._producer.init_transactions, "init_transactions", deadline)

    def commit(self, outputs: Sequence[Output], journal: Sequence[Output]) -> list[int]:
        """Sends all of it in one transaction; returns the offsets of the journal's records.

        An abort sends the same records again. Raises ServiceError when that cannot go on.
        """
        deadline = _Deadline.of("kafka.transaction_deadline_s", self._deadline_seconds)
        for _ in range(1 + MOST_ABORTS):
            try:
                return self._attempt(outputs, journal, deadline)
            except _Abort as abort:
                log.warning("transaction aborted, its records are sent again: %s", abort)
                last = abort.error
                cause = service_error(last, "the step's transaction was aborted")
                try:
                    self._for_good(self._producer.abort_transaction, "abort_transaction", deadline)
                except ServiceError:
                    # Of a transaction that the brokers refused from its first record on, they know nothing to abort.
                    if not isinstance(cause, PersonMustAct):
                        raise
                if isinstance(cause, PersonMustAct):
                    raise cause from None
        raise service_error(last, f"a step's transaction was aborted {MOST_ABORTS + 1} times")

    def close(self) -> None:
        """Forgets what was not committed."""
        self._producer.purge()
        self._quietly(self._producer.flush, SLICE_SECONDS)

    # --- one transaction ---

    def _attempt(self, outputs: Sequence[Output], journal: Sequence[Output], deadline: _Deadline) -> list[int]:
        self._call(self._producer.begin_transaction, "begin_transaction")
        failpoints.reached("transaction-begun")
        for output in outputs:
            self._produce(output, None, deadline)
        failpoints.reached("outputs-sent")
        offsets: list[int] = []
        for record in journal:
            self._produce(record, lambda error, message: _keep_offset(offsets, error, message), deadline)
        failpoints.reached("journal-sent")
        failpoints.soon("committing")
        self._retried(self._producer.commit_transaction, "commit_transaction", deadline)
        failpoints.reached("committed")
        self._errors.brokers_up = True
        if len(offsets) < len(journal):
            raise RestartMayHelp("the client reported no offset of a committed journal record", "start again")
        return offsets

    def _produce(self, output: Output, on_delivery: Callable[[Any, Message], None] | None, deadline: _Deadline) -> None:
        while True:
            try:
                self._producer.produce(
                    output.topic,
                    value=output.value,
                    key=output.key,
                    partition=output.partition,
                    headers=list(output.headers),
                    on_delivery=on_delivery,
                )
                return
            except BufferError:  # the queue is full: back-pressure
                self._quietly(self._producer.poll, SLICE_SECONDS)
                self._check(deadline, f"a record for {output.topic} was not taken")
            except KafkaException as failed:
                raise self._verdict(failed.args[0], f"sending a record to {output.topic}", abort_others=True) from None

    def _for_good(self, call: Callable[[float], object], name: str, deadline: _Deadline) -> None:
        """`_retried`, where there is nothing to abort."""
        try:
            self._retried(call, name, deadline)
        except _Abort as failed:
            raise service_error(failed.error, name) from None

    # --- calls ---

    def _retried(self, call: Callable[[float], object], name: str, deadline: _Deadline) -> None:
        """The same call again while brokers are away."""
        while True:
            try:
                call(CALL_SECONDS)
                return
            except KafkaException as failed:
                error: KafkaError = failed.args[0]
                again = error.retriable() or error.code() == KafkaError._TIMED_OUT
                if not again or error.txn_requires_abort() or error.fatal():  # a record may have timed out
                    raise self._verdict(error, name) from None
                log.info("%s is repeated: %s (%s)", name, error.str(), error.name())
            self._check(deadline, f"{name} did not succeed")

    def _call(self, call: Callable[[], object], name: str) -> None:
        try:
            call()
        except KafkaException as failed:
            raise self._verdict(failed.args[0], name) from None

    def _verdict(self, error: KafkaError, doing: str, *, abort_others: bool = False) -> ServiceError | _Abort:
        """What to do about an error that repeating the call does not help against."""
        if not error.fatal() and (error.txn_requires_abort() or abort_others):
            return _Abort(error)
        return service_error(error, doing)

    def _check(self, deadline: _Deadline, what: str) -> None:
        if self._give_up():
            raise RestartMayHelp(
                "asked to stop, but the brokers did not commit the step within shutdown.grace_s",
                "start again: the step is done again",
            )
        if time.monotonic() > deadline.at:
            raise RestartMayHelp(
                f"{what} within {deadline.setting} = {deadline.seconds:g}: no broker could do it",
                "see that the brokers are up, then start again: what was not committed is done again",
            )

    @staticmethod
    def _quietly(call: Callable[[float], object], seconds: float) -> None:
        """After a fatal error the client may raise SystemError here; the next transactional call tells the real one."""
        try:
            call(seconds)
        except (SystemError, KafkaException) as failed:
            log.info("Kafka client: %s", failed)


def _keep_offset(offsets: list[int], error: KafkaError | None, message: Message) -> None:
    offset = message.offset()
    if error is None and offset is not None:
        offsets.append(offset)
