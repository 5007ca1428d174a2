"""A real Apache Kafka (KRaft, one node) for the tests, and by ``python -m tests.support.kafka`` for a person.

Where it comes from, the first that works: ``KAFKA_BOOTSTRAP_SERVERS`` (somebody else's), its published jars through
Maven and Java, a Docker engine.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.support.kafka_jars import KAFKA_VERSION, KafkaUnavailableError, kafka_jars

START_TIMEOUT_SECONDS = 60.0
STOP_TIMEOUT_SECONDS = 20.0

_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
log.dirs={folder}/data
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
# Back after SIGKILL in 4 instead of 13 seconds.
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
"""

_LOGGING = """\
appender.console.type=Console
appender.console.name=console
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=%d %p %c: %m%n
rootLogger.level=warn
rootLogger.appenderRef.console.ref=console
"""


class Broker(Protocol):
    """A broker that tests may stop, kill and start again; its topics outlive that."""

    bootstrap_servers: str

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def kill(self) -> None: ...
    def restart(self) -> None: ...
    def close(self) -> None: ...


class JarBroker:
    """Kafka as a child process, which dies with this process however this one ends."""

    def __init__(self, port: int | None = None) -> None:
        self._libraries = kafka_jars()
        if shutil.which("java") is None:
            raise KafkaUnavailableError("java is not installed")
        self.folder = Path(tempfile.mkdtemp(prefix="prototide-kafka-"))
        self.log = self.folder / "kafka.log"
        port = port or free_port()
        self.bootstrap_servers = f"127.0.0.1:{port}"
        self._config = self.folder / "server.properties"
        properties = _PROPERTIES.format(port=port, controller_port=free_port(), folder=self.folder)
        self._config.write_text(self._completed(properties))
        (self.folder / "log4j2.properties").write_text(_LOGGING)
        self._process: subprocess.Popen[bytes] | None = None
        self._format_storage()

    def start(self) -> None:
        """Returns when the broker answers."""
        with self.log.open("ab") as log:
            command = self._java("kafka.Kafka", str(self._config))
            self._process = subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=_die_with_parent)
        try:
            wait_until_up(self.bootstrap_servers, self._check_alive)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """A graceful shutdown."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """What a crash does."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """A graceful restart at the same port with the same topics."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Ends the broker and forgets its topics."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _java(self, main: str, *arguments: str) -> list[str]:
        logging = f"-Dlog4j2.configurationFile={self.folder}/log4j2.properties"
        # The serial collector and the first compiler tier start fast and leave the cores to the tests.
        options = ["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", logging]
        return ["java", *options, "-cp", f"{self._libraries}/*", main, *arguments]

    def _completed(self, properties: str) -> str:
        """The broker's properties."""
        return properties

    def _format_options(self) -> list[str]:
        return []

    def _format_storage(self) -> None:
        cluster = uuid.uuid4().hex[:22]
        options = ["-t", cluster, "-c", str(self._config), *self._format_options()]
        command = self._java("kafka.tools.StorageTool", "format", *options)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise KafkaUnavailableError(f"Kafka's storage tool failed: {(done.stdout + done.stderr)[-500:].strip()}")

    def _check_alive(self) -> None:
        if self._process is not None and self._process.poll() is not None:
            tail = self.log.read_text(errors="replace")[-1500:]
            raise KafkaUnavailableError(f"Kafka ended with status {self._process.returncode}: {tail}")

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(how)
        try:
            self._process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


class DockerBroker:
    """Kafka in a container of the official image."""

    def __init__(self, port: int | None = None) -> None:
        port = port or free_port()
        self.bootstrap_servers = f"127.0.0.1:{port}"
        self._name = f"prototide-kafka-{uuid.uuid4().hex[:12]}"
        settings = dict(
            line.split("=", 1)
            for line in _PROPERTIES.format(port=port, controller_port=19093, folder="/tmp").splitlines()
            if not line.startswith("#")
        )
        settings["listeners"] = f"PLAINTEXT://:{port},CONTROLLER://:19093"
        environment = [f"--env=KAFKA_{name.upper().replace('.', '_')}={value}" for name, value in settings.items()]
        image = f"apache/kafka:{KAFKA_VERSION}"
        self._docker("create", f"--name={self._name}", f"--publish=127.0.0.1:{port}:{port}", *environment, image)

    def start(self) -> None:
        """Returns when the broker answers."""
        self._docker("start", self._name)
        wait_until_up(self.bootstrap_servers, lambda: None)

    def stop(self) -> None:
        """A graceful shutdown."""
        self._docker("stop", self._name)

    def kill(self) -> None:
        """What a crash does."""
        self._docker("kill", self._name)

    def restart(self) -> None:
        """A graceful restart at the same port with the same topics."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Ends the broker and forgets its topics."""
        self._docker("rm", "--force", "--volumes", self._name)

    @staticmethod
    def engine_answers() -> bool:
        """Whether there is a Docker engine behind the command."""
        if shutil.which("docker") is None:
            return False
        return subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0

    def _docker(self, *arguments: str) -> None:
        done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise KafkaUnavailableError(f"docker {arguments[0]} failed: {done.stderr.strip()}")


def new_broker(port: int | None = None) -> Broker:
    """A broker of our own, not started yet; raises KafkaUnavailableError with what was tried."""
    try:
        return JarBroker(port)
    except KafkaUnavailableError as no_jars:
        if not DockerBroker.engine_answers():
            raise KafkaUnavailableError(f"{no_jars}; no Docker engine answers") from no_jars
    return DockerBroker(port)


@contextlib.contextmanager
def running_broker(port: int | None = None) -> Iterator[Broker]:
    """A started broker that is gone afterwards."""
    broker = new_broker(port)
    try:
        broker.start()
        yield broker
    finally:
        broker.close()


def free_port() -> int:
    """A port nobody listens at, below the range from which the kernel picks ports of outgoing connections."""
    for _ in range(200):
        port = random.randint(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no free port between 20000 and 32000")


def wait_until_up(bootstrap_servers: str, check_alive: Callable[[], None]) -> None:
    """Returns when the broker answers; raises when it ended or is not up in time."""
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    admin = AdminClient({"bootstrap.servers": bootstrap_servers, "reconnect.backoff.max.ms": 200, "log_level": 0})
    while True:
        check_alive()
        with contextlib.suppress(KafkaException):
            if admin.list_topics(timeout=1.0).brokers:
                return
        if time.monotonic() > deadline:
            raise KafkaUnavailableError(f"Kafka at {bootstrap_servers} is not up after {START_TIMEOUT_SECONDS:.0f} s")


def _die_with_parent() -> None:
    parent_death_signal = 1  # PR_SET_PDEATHSIG of <sys/prctl.h>
    ctypes.CDLL(None).prctl(parent_death_signal, signal.SIGKILL)
    os.setpgrp()  # a terminal's Ctrl-C goes to this process, which then ends the broker


def main() -> None:
    """A broker for a person, until Ctrl-C."""
    parser = argparse.ArgumentParser(description="Starts a real Apache Kafka (KRaft, one node) until Ctrl-C.")
    parser.add_argument("--port", type=int, default=9092)
    port: int = parser.parse_args().port
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        with running_broker(port):
            print(
                f"Kafka {KAFKA_VERSION} is up at localhost:{port} (Ctrl-C ends it and forgets its topics)", flush=True
            )
            signal.pause()
    except KeyboardInterrupt:
        print("Kafka ended")
    except KafkaUnavailableError as error:
        sys.exit(f"no Kafka: {error}")


if __name__ == "__main__":
    main()
