from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse

import pytest

from prototide.service.errors import PersonMustAct
from prototide.service.health import Heartbeat, Readiness
from prototide.service.http_server import HealthServer, status_page


@dataclass
class Clock:
    seconds: float = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server(clock: Clock) -> Iterator[HealthServer]:
    with make(Heartbeat(deadline_seconds=10, clock=clock)) as server:
        yield server


def make(heartbeat: Heartbeat, port: int = 0) -> HealthServer:
    return HealthServer(
        "127.0.0.1",
        port,
        heartbeat=heartbeat,
        readiness=Readiness(),
        render=lambda accept, encoding: (f"{accept}|{encoding}".encode(), {"Content-Type": "text/x-metrics"}),
        status=lambda: {"rows predicted": "12", "<lag>": "3"},
    )


def ask(server: HealthServer, path: str, method: str = "GET", **headers: str) -> tuple[HTTPResponse, str]:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return response, response.read().decode()
    finally:
        connection.close()


def test_livez_fails_when_the_loop_is_stuck(server: HealthServer, clock: Clock) -> None:
    response, text = ask(server, "/livez")
    assert (response.status, text) == (200, "the loop turned 0.0 s ago\n")
    clock.seconds = 11
    response, text = ask(server, "/livez")
    assert (response.status, text) == (503, "the loop turned 11.0 s ago\n")


def test_readyz_gives_a_line_for_each_reason(server: HealthServer) -> None:
    response, text = ask(server, "/readyz")
    assert (response.status, text) == (200, "ready\n")
    server.readiness.set("brokers", "away since 12:00")
    server.readiness.set("dead letters", "too many")
    response, text = ask(server, "/readyz?verbose")
    assert (response.status, text) == (503, "brokers: away since 12:00\ndead letters: too many\n")


def test_a_service_that_waits_for_brokers_is_alive_but_not_ready(server: HealthServer) -> None:
    server.readiness.set("brokers", "away")
    assert ask(server, "/livez")[0].status == 200
    assert ask(server, "/readyz")[0].status == 503


def test_metrics_pass_on_what_the_scraper_accepts(server: HealthServer) -> None:
    response, text = ask(server, "/metrics", Accept="application/openmetrics-text", **{"Accept-Encoding": "gzip"})
    assert (response.status, text) == (200, "application/openmetrics-text|gzip")
    assert response.headers["Content-Type"] == "text/x-metrics"


def test_the_status_page_shows_state_reasons_and_numbers(server: HealthServer, clock: Clock) -> None:
    server.readiness.set("brokers", "<away>")
    response, text = ask(server, "/")
    assert response.headers["Content-Type"].startswith("text/html")
    assert "<strong>Not ready</strong>" in text
    assert "<li>brokers: &lt;away&gt;</li>" in text
    assert "<tr><td>rows predicted</td><td>12</td></tr>" in text
    assert "<td>&lt;lag&gt;</td>" in text
    assert 'href="/metrics"' in text
    clock.seconds = 99
    assert "Stuck: the loop turned 99.0 s ago" in ask(server, "/")[1]


def test_a_ready_service_says_so() -> None:
    assert "<strong>Ready</strong>" in status_page("Ready", [], {})


def test_other_paths_are_not_found(server: HealthServer) -> None:
    assert ask(server, "/etc/passwd")[0].status == 404


def test_head_gives_headers_only(server: HealthServer) -> None:
    response, text = ask(server, "/readyz", "HEAD")
    assert (response.status, text, response.headers["Content-Length"]) == (200, "", "6")


def test_a_port_in_use_is_a_matter_for_a_person(server: HealthServer) -> None:
    with pytest.raises(PersonMustAct, match=rf"cannot serve HTTP on 127\.0\.0\.1:{server.port}.*http\.port"):
        make(Heartbeat(), server.port)


def test_closing_frees_the_port() -> None:
    first = make(Heartbeat())
    first.start()
    port = first.port
    first.close()
    with make(Heartbeat(), port) as second:
        assert ask(second, "/livez")[0].status == 200
