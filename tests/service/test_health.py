from hypothesis import given
from hypothesis import strategies as st

from prototide.service.health import DeadLetterStorm, Heartbeat, Readiness


def test_the_loop_is_alive_until_its_deadline_passes() -> None:
    now = 100.0
    heartbeat = Heartbeat(deadline_seconds=10, clock=lambda: now)
    now = 110.0
    assert heartbeat.alive
    now = 110.1
    assert not heartbeat.alive
    heartbeat.touch()
    assert heartbeat.alive
    assert heartbeat.age_seconds == 0


def test_ready_means_that_no_part_has_a_reason_against_it() -> None:
    readiness = Readiness({"brokers": "not reached yet"}.items())
    assert not readiness.ready
    readiness.set("replay", "step 7 of 9")
    assert readiness.reasons == ["brokers: not reached yet", "replay: step 7 of 9"]
    readiness.set("brokers", None)
    readiness.set("replay", "step 8 of 9")
    assert readiness.reasons == ["replay: step 8 of 9"]
    readiness.set("replay", None)
    readiness.set("replay", None)
    assert readiness.ready


def test_one_bad_first_record_is_no_storm() -> None:
    assert DeadLetterStorm(max_ratio=0.5, window=10).update(1, 1) is None


def test_a_storm_starts_above_the_ratio_and_ends_with_good_records() -> None:
    storm = DeadLetterStorm(max_ratio=0.5, window=10)
    assert storm.update(5, 5) is None
    reason = storm.update(5, 1)
    assert reason is not None
    assert reason.startswith("6 of the last 10 records are dead letters")
    assert storm.update(5, 0) is None


@given(st.lists(st.integers(1, 8).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))), min_size=1))
def test_the_ratio_is_that_of_the_fewest_newest_steps_that_fill_the_window(steps: list[tuple[int, int]]) -> None:
    storm = DeadLetterStorm(max_ratio=0.3, window=10)
    for done in range(1, len(steps) + 1):
        reason = storm.update(*steps[done - 1])
        records = dead = 0
        for step_records, step_dead in reversed(steps[:done]):
            if records >= 10:
                break
            records += step_records
            dead += step_dead
        assert (reason is not None) is (dead > 0.3 * max(records, 10))


def test_a_long_turn_that_was_told_of_is_no_death() -> None:
    now = 0.0
    heartbeat = Heartbeat(deadline_seconds=10, clock=lambda: now)
    heartbeat.touch(longer_seconds=90)
    now = 100.0
    assert heartbeat.alive
    now = 100.1
    assert not heartbeat.alive
    heartbeat.touch()
    now = 110.2
    assert not heartbeat.alive
