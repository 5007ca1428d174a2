"""The long form of the chaos suite: ``python -m tests.chaos`` (`make chaos`).

At least 200 kills: every failpoint ten times, the rest at random instants; zombies that another instance takes over
from; brokers restarted in good order and killed. In rounds: each compares everything with its uninterrupted run.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import uuid
from collections import Counter
from pathlib import Path

from prototide.service import failpoints
from tests.chaos.driver import Chaos, every_failpoint
from tests.support.kafka import running_broker
from tests.support.stream import until

ROUNDS = 10
PROMISED = {"kills": 200, "zombies": 20, "brokers": 10}  # by so many rounds
RANDOM_KILLS, ZOMBIES, BROKER_FAULTS = 2, 2, 1  # a round


def main() -> None:
    """Runs the rounds; an AssertionError ends them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**31)
    options = parser.parse_args()
    total: Counter[str] = Counter()
    print(f"seed {options.seed}", flush=True)
    with running_broker() as broker:
        for number in range(options.rounds):
            started, unique = time.monotonic(), uuid.uuid4().hex[:8]
            interval = (0, 50)[number % 2]
            with (
                tempfile.TemporaryDirectory() as folder,
                Chaos(
                    broker.bootstrap_servers,
                    Path(folder),
                    lambda name, unique=unique: f"{name}-{unique}",  # type: ignore[misc]
                    f"commit.interval_ms={interval}",
                    seed=options.seed + number,
                ) as chaos,
            ):
                for failpoint in every_failpoint():
                    chaos.kill_at(failpoint)
                for _ in range(RANDOM_KILLS):
                    chaos.kill_soon()
                for zombie in range(ZOMBIES):
                    with chaos.service.another(f"instance.id=other-{zombie}") as other:
                        chaos.pause_and_take_over(other)
                for fault in range(BROKER_FAULTS):
                    chaos.service.start_ready()
                    before = chaos.service.metric("prototide_steps_total")
                    broker.stop() if (number + fault) % 2 else broker.kill()
                    broker.start()
                    until(lambda: chaos.service.metric("prototide_steps_total") > before + 5, 120)  # noqa: B023
                    assert chaos.service.terminate() == 0
                chaos.settle_and_check()
                total.update(kills=chaos.kills, zombies=ZOMBIES, brokers=BROKER_FAULTS)
                total.update(f"at {failpoint}" for failpoint in chaos.killed_at)
            print(f"round {number + 1}: {dict(total)}, {time.monotonic() - started:.0f} s", flush=True)
    if options.rounds >= ROUNDS:
        for what, least in (PROMISED | {f"at {name}": 10 for name in failpoints.NAMES}).items():
            assert total[what] >= least, f"only {total[what]} {what}, {least} are promised"


if __name__ == "__main__":
    main()
