"""Whether the topics are still those of the start: a topic that was re-created silently lacks its first records."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

from confluent_kafka import KafkaException, TopicCollection

from prototide.service.clients import ClientErrors, admin_client
from prototide.service.restoring import check_ids
from prototide.service.settings import Settings

LOOK_INTERVAL_SECONDS = 10.0
REQUEST_SECONDS = 30.0


class TopicWatch:
    """Asks for the topics' ids now and then, without waiting for the answer."""

    def __init__(self, settings: Settings, ids: Mapping[str, str], errors: ClientErrors) -> None:
        """`ids`: those at start; none: the brokers have none."""
        self._ids = {name: ids[name] for name in (settings.topics.train, settings.topics.journal) if name in ids}
        self._admin = admin_client(settings, errors)
        self._asked: Mapping[str, Future[Any]] = {}
        self._next = time.monotonic() + LOOK_INTERVAL_SECONDS

    def check(self) -> None:
        """Raises PersonMustAct when an answer says that a topic was re-created."""
        if self._asked and all(future.done() for future in self._asked.values()):
            answers, self._asked = self._asked, {}
            check_ids(self._ids, {name: answer for name, each in answers.items() if (answer := _id(each)) is not None})
        if self._ids and not self._asked and time.monotonic() >= self._next:
            self._next = time.monotonic() + LOOK_INTERVAL_SECONDS
            names = TopicCollection(list(self._ids))
            self._asked = self._admin.describe_topics(names, request_timeout=REQUEST_SECONDS)


def _id(answer: Future[Any]) -> str | None:
    """None: no answer, which whoever uses the topic will notice, too."""
    try:
        return str(answer.result().topic_id)
    except KafkaException:
        return None
