from __future__ import annotations

import os
import signal

import pytest
import typer

from prototide.service.commands.ending import ending_in_one_line, settings_of, stopped_by_interrupt
from prototide.service.errors import PersonMustAct, RestartMayHelp, ServiceError


@pytest.mark.parametrize(("error", "code"), [(RestartMayHelp("it broke", "again"), 75), (PersonMustAct("a", "b"), 78)])
def test_a_service_error_ends_in_one_line_and_its_exit_code(
    error: ServiceError, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as caught, ending_in_one_line():
        raise error
    assert caught.value.exit_code == code
    assert capsys.readouterr().err == f"prototide: {error}\n"


def test_the_flag_for_brokers_wins_over_set() -> None:
    settings = settings_of(None, ["kafka.bootstrap_servers=a:1", "topics.train=t"], "b:2")
    assert (settings.kafka.bootstrap_servers, settings.topics.train) == ("b:2", "t")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_first_signal_asks_to_stop_and_handlers_are_given_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stopped_by_interrupt() as stopped:
        assert not stopped()
        os.kill(os.getpid(), number)
        assert stopped()
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_interrupts_at_once() -> None:
    with stopped_by_interrupt() as stopped:
        os.kill(os.getpid(), signal.SIGINT)
        assert stopped()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_what_nobody_expected_ends_in_one_line_that_says_what_to_do(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    with pytest.raises(typer.Exit) as ended, ending_in_one_line():
        raise RuntimeError("out of\n cheese")
    assert ended.value.exit_code == 75
    told = capsys.readouterr().err
    assert told.startswith("prototide: unexpected RuntimeError: out of cheese; start again; if it persists, report it")
    assert told.count("\n") == 1
    assert "Traceback" in caplog.text


@pytest.mark.parametrize("own", [typer.Exit(3), typer.Abort(), typer.BadParameter("no"), BrokenPipeError()])
def test_the_command_lines_own_ends_stay(own: Exception) -> None:
    with pytest.raises(type(own)), ending_in_one_line():
        raise own
