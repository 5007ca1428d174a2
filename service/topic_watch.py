"""Whether the topics are still those of the start.

A topic that was re-created silently lacks its first records; one that was deleted looks to its consumer like one that
nobody writes to.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection

from prototide.service.clients import REQUEST_SECONDS, ClientErrors, admin_client
from prototide.service.errors import NEW_MODEL, PersonMustAct
from prototide.service.restoring import check_ids
from prototide.service.settings import Settings

LOOK_INTERVAL_SECONDS = 10.0
GONE = ""


class TopicWatch:
    """Asks for the topics' ids now and then, without waiting for the answer."""

    def __init__(self, settings: Settings, ids: Mapping[str, str], errors: ClientErrors) -> None:
        """`ids`: those at start; none: the brokers have none, and nothing is asked."""
        topics = settings.topics
        self._ids = {name: ids[name] for name in (topics.train, topics.journal) if name in ids}
        self._names = [*self._ids, topics.predictions, topics.dead_letters] if self._ids else []
        self._admin = admin_client(settings, errors)
        self._asked: Mapping[str, Future[Any]] = {}
        self._gone: set[str] = set()  # not there when it was asked last
        self._next = time.monotonic() + LOOK_INTERVAL_SECONDS

    def check(self) -> None:
        """Raises PersonMustAct when an answer says that a topic was re-created, or two that it is not there."""
        if self._asked and all(future.done() for future in self._asked.values()):
            answers, self._asked = {name: _id(future) for name, future in self._asked.items()}, {}
            check_ids(self._ids, {name: found for name, found in answers.items() if found})
            gone = {name for name, found in answers.items() if found == GONE}
            for name in sorted(gone & self._gone):
                then = NEW_MODEL if name in self._ids else "start again: the model goes on where it was"
                raise PersonMustAct(f"topic {name} was deleted", f"`prototide topics create`, then {then}")
            self._gone = gone | {name for name in self._gone if answers[name] is None}
        if self._names and not self._asked and time.monotonic() >= self._next:
            self._next = time.monotonic() + LOOK_INTERVAL_SECONDS
            self._asked = self._admin.describe_topics(TopicCollection(self._names), request_timeout=REQUEST_SECONDS)


def _id(answer: Future[Any]) -> str | None:
    """`GONE`: there is no such topic. None: no answer, which whoever uses the topic will notice, too."""
    try:
        return str(answer.result().topic_id)
    except KafkaException as failed:
        return GONE if failed.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART else None
