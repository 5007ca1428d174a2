"""What every test may use: a real Kafka (started once a session), topic names of its own."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable, Iterator

import pytest

from tests.support.kafka import Broker, running_broker
from tests.support.kafka_jars import KafkaUnavailableError

_skipped_for = pytest.StashKey[str]()


@pytest.fixture(scope="session")
def kafka(request: pytest.FixtureRequest) -> Iterator[str]:
    """Bootstrap servers of a real Kafka; tests that use it are marked ``kafka``."""
    given = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    if given:
        yield given
    else:
        with _broker(request.config) as broker:
            yield broker.bootstrap_servers


@pytest.fixture
def own_kafka(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """A real Kafka that the test may stop, kill and start; marked ``kafka``, too."""
    with _broker(request.config) as broker:
        yield broker


@contextlib.contextmanager
def _broker(config: pytest.Config) -> Iterator[Broker]:
    with contextlib.ExitStack() as stack:
        try:
            broker = stack.enter_context(running_broker())
        except KafkaUnavailableError as error:
            if os.environ.get("PROTOTIDE_REQUIRE_KAFKA") == "1":
                pytest.fail(f"PROTOTIDE_REQUIRE_KAFKA=1, but there is no Kafka: {error}")
            config.stash[_skipped_for] = str(error)
            pytest.skip(f"no Kafka: {error}")
        yield broker


@pytest.fixture
def topic_name() -> Callable[[str], str]:
    """Makes names of topics that no other test uses."""
    unique = uuid.uuid4().hex[:10]
    return lambda name: f"{name}-{unique}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """One loud line when the tests on a real Kafka did not run."""
    if _skipped_for in config.stash:
        line = f"THE TESTS ON A REAL KAFKA WERE SKIPPED: {config.stash[_skipped_for]}"
        terminalreporter.write_line(line, red=True, bold=True)
