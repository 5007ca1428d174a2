import io
import json
import logging
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest

from prototide.service import logs

log = logging.getLogger("prototide.somewhere")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers = []
    yield
    root.handlers, root.level = handlers, level


def test_a_pipe_gets_json_lines_with_the_extra_fields() -> None:
    stream = io.StringIO()
    logs.set_up("auto", "info", stream)
    log.info("checkpoint of step %d\nwritten", 7, extra={"step": 7, "path": object, "level": "forged"})
    [line] = stream.getvalue().splitlines()
    told = json.loads(line)
    assert told | {"ts": "", "path": ""} == {
        "ts": "",
        "level": "info",
        "logger": "prototide.somewhere",
        "message": "checkpoint of step 7\nwritten",
        "step": 7,
        "path": "",
    }
    assert told["ts"].endswith("Z")
    assert datetime.fromisoformat(told["ts"]).utcoffset() == timedelta(0)


def test_a_terminal_gets_text() -> None:
    stream = Terminal()
    logs.set_up("auto", "info", stream)
    log.warning("lag grows", extra={"records": 5})
    assert stream.getvalue().endswith(" WARNING lag grows records=5\n")


@pytest.mark.parametrize(("format_name", "is_json"), [("json", True), ("text", False)])
def test_a_format_by_name_wins_over_the_kind_of_stream(format_name: str, is_json: bool) -> None:
    stream = Terminal()
    logs.set_up(format_name, "info", stream)  # type: ignore[arg-type]
    log.info("x")
    assert stream.getvalue().startswith("{") is is_json


def test_the_level_is_kept() -> None:
    stream = io.StringIO()
    logs.set_up("json", "warning", stream)
    log.info("unheard")
    log.warning("heard")
    assert [json.loads(line)["message"] for line in stream.getvalue().splitlines()] == ["heard"]


def test_an_exception_stays_in_its_line() -> None:
    stream = io.StringIO()
    logs.set_up("json", "info", stream)
    try:
        raise ValueError("broken")
    except ValueError:
        log.exception("a step failed")
    [line] = stream.getvalue().splitlines()
    assert json.loads(line)["exception"].endswith("ValueError: broken")


def test_setting_up_twice_tells_each_line_once() -> None:
    stream = io.StringIO()
    logs.set_up("json", "info", stream)
    logs.set_up("json", "info", stream)
    log.info("once")
    assert len(stream.getvalue().splitlines()) == 1
