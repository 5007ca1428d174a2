"""The service under a steady load, then ten times what it sustains: memory, threads, files stay flat, the lag drains.

python -m tests.chaos.soak --minutes 30            (`make soak`)
python -m tests.chaos.soak --minutes 1 --overload
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
import uuid
from pathlib import Path

import numpy as np
import psutil
from confluent_kafka import Producer

from tests.support.kafka import running_broker
from tests.support.service import Service, records
from tests.support.stream import until

SAMPLE_SECONDS = 5.0
PROBE_RECORDS, PROBE_PER_SECOND = 10_000, 20_000  # a back-log that tells what the service sustains
WARM_SHARE = 0.25  # of the samples: caches fill, the allocator settles


class Load(threading.Thread):
    """Sends records of 20 rows at a rate."""

    def __init__(self, service: Service, per_second: float) -> None:
        super().__init__(daemon=True)
        self.sent = 0
        self.per_second = per_second
        self._topic = service.settings.topics.train
        servers = service.settings.kafka.bootstrap_servers
        self._producer = Producer({"bootstrap.servers": servers, "queue.buffering.max.messages": 1_000_000})
        self._values = records(500)
        self._stopped = threading.Event()

    def run(self) -> None:
        while not self._stopped.wait(0.01):
            for _ in range(round(self.per_second / 100)):
                self._producer.produce(self._topic, self._values[self.sent % 500], partition=self.sent % 2)
                self.sent += 1
            self._producer.poll(0)

    def stop(self) -> None:
        self._stopped.set()
        self.join()
        assert self._producer.flush(120) == 0


def sustainable(service: Service) -> float:
    """Records/s that it works off."""
    load = Load(service, PROBE_PER_SECOND)
    load.start()
    until(lambda: load.sent >= PROBE_RECORDS)
    load.stop()
    done, started = service.metric("prototide_records_total"), time.monotonic()
    until(lambda: service.metric("prototide_records_total") >= load.sent, 600)
    return (load.sent - done) / (time.monotonic() - started)


def main() -> None:
    """Prints the samples' trends; an AssertionError when something grows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--overload", action="store_true", help="10x the sustainable rate instead of 0.7x")
    options = parser.parse_args()
    unique = uuid.uuid4().hex[:8]
    with (
        running_broker() as broker,
        tempfile.TemporaryDirectory() as folder,
        Service(
            broker.bootstrap_servers, Path(folder), lambda name: f"{name}-{unique}", "checkpoint.interval_s=5"
        ) as service,
    ):
        service.create_topics().start_ready()
        rate = sustainable(service)
        print(f"sustains {rate:,.0f} records of 20 rows a second", flush=True)
        offset = service.metric("prototide_records_total")
        load = Load(service, rate * (10 if options.overload else 0.7))
        load.start()
        samples = watch(service, options.minutes * 60)
        load.stop()
        until(lambda: service.metric("prototide_records_total") - offset >= load.sent, 1800)
        print(f"{load.sent:,} records sent and worked off", flush=True)
        tell(samples)
        assert service.terminate() == 0


def watch(service: Service, seconds: float) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """(samples, 4): resident MiB, threads, files, lag."""
    process = psutil.Process(service.pid)
    rows, ends = [], time.monotonic() + seconds
    while time.monotonic() < ends:
        time.sleep(SAMPLE_SECONDS)
        lag = service.metric("prototide_consumer_lag_records")
        rows.append([process.memory_info().rss / 2**20, process.num_threads(), process.num_fds(), lag])
    return np.array(rows)


def tell(samples: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> None:
    """First and last settled values; raises AssertionError for growth of more than a tenth and 64 MiB."""
    settled = samples[int(len(samples) * WARM_SHARE) :]
    quarter = max(1, len(settled) // 4)
    for number, name in enumerate(("resident, MiB", "threads", "files", "lag, records")):
        begin, end = (float(np.median(part[:, number])) for part in (settled[:quarter], settled[-quarter:]))
        print(f"{name:<16} {begin:12,.1f} -> {end:12,.1f}   highest {samples[:, number].max():12,.1f}", flush=True)
        if name != "lag, records":
            allowed = max(0.1 * begin, 64 if number == 0 else 2)
            assert end - begin <= allowed, f"{name} grew from {begin} to {end}"


if __name__ == "__main__":
    main()
