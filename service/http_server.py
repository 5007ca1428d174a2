"""HTTP for machines and people: ``/metrics``, ``/livez``, ``/readyz`` and a status page at ``/``."""

from __future__ import annotations

import html
import socket
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import Self

from prototide.service.errors import PersonMustAct
from prototide.service.health import Heartbeat, Readiness

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="5"><title>prototide</title>
<style>body {{ font: 16px/1.5 system-ui, sans-serif; margin: 3em auto; max-width: 36em; padding: 0 1em }}
td {{ padding: .2em 2em .2em 0 }} td + td {{ text-align: right; font-variant-numeric: tabular-nums }}</style></head>
<body><h1>prototide</h1><p><strong>{state}</strong></p><ul>{reasons}</ul><table>{rows}</table>
<p><a href="/metrics">/metrics</a> · <a href="/livez">/livez</a> · <a href="/readyz">/readyz</a></p></body></html>
"""


def status_page(state: str, reasons: list[str], numbers: Mapping[str, str]) -> str:
    """The page at ``/``: a state in words, reasons against being ready, a table of numbers."""
    return _PAGE.format(
        state=html.escape(state),
        reasons="".join(f"<li>{html.escape(reason)}</li>" for reason in reasons),
        rows="".join(
            f"<tr><td>{html.escape(name)}</td><td>{html.escape(value)}</td></tr>" for name, value in numbers.items()
        ),
    )


class HealthServer:
    """Serves from a daemon thread until closed.

    `render` gives the metrics for the request's Accept and Accept-Encoding headers, `status` the page's numbers.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        heartbeat: Heartbeat,
        readiness: Readiness,
        render: Callable[[str, str], tuple[bytes, dict[str, str]]],
        status: Callable[[], Mapping[str, str]],
    ) -> None:
        self.heartbeat = heartbeat
        self.readiness = readiness
        self.render = render
        self.status = status
        try:
            self._server = _Server(host, port, self)
        except OSError as error:
            raise PersonMustAct(
                f"cannot serve HTTP on {host}:{port}: {error.strerror or error}",
                "set http.host and http.port to an address that is free here",
            ) from error
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="http", daemon=True)

    @property
    def port(self) -> int:
        """The port served, also when the setting left the choice to the system."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Answers from now on."""
        self._thread.start()

    def close(self) -> None:
        """Stops answering and frees the port."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def livez(self) -> tuple[HTTPStatus, str]:
        """Status and text of ``/livez``."""
        age = f"the loop turned {self.heartbeat.age_seconds:.1f} s ago"
        return (HTTPStatus.OK, age) if self.heartbeat.alive else (HTTPStatus.SERVICE_UNAVAILABLE, age)

    def readyz(self) -> tuple[HTTPStatus, str]:
        """Status and text of ``/readyz``: a line for each reason against being ready."""
        reasons = self.readiness.reasons
        return (HTTPStatus.SERVICE_UNAVAILABLE, "\n".join(reasons)) if reasons else (HTTPStatus.OK, "ready")

    def page(self) -> str:
        """The status page."""
        reasons = self.readiness.reasons
        state = "Not ready" if reasons else "Ready"
        if not self.heartbeat.alive:
            state = f"Stuck: {self.livez()[1]}"
        return status_page(state, reasons, self.status())


class _Server(ThreadingTCPServer):
    """Not http.server's own: that one asks DNS for the host's name at start, which may take its time."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, host: str, port: int, health: HealthServer) -> None:
        self.health = health
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version = "prototide"
    sys_version = ""
    timeout = 10  # seconds: a silent client does not keep its thread for ever

    def do_GET(self) -> None:
        health = self.server.health
        match self.path.partition("?")[0]:
            case "/metrics":
                body, headers = health.render(self.headers.get("Accept", ""), self.headers.get("Accept-Encoding", ""))
                self._answer(HTTPStatus.OK, body, headers)
            case "/livez":
                self._text(*health.livez())
            case "/readyz":
                self._text(*health.readyz())
            case "/":
                self._answer(HTTPStatus.OK, health.page().encode(), {"Content-Type": "text/html; charset=utf-8"})
            case _:
                self._text(HTTPStatus.NOT_FOUND, "try /, /metrics, /livez or /readyz")

    def do_HEAD(self) -> None:
        self.do_GET()

    def _text(self, status: HTTPStatus, text: str) -> None:
        self._answer(status, f"{text}\n".encode(), {"Content-Type": "text/plain; charset=utf-8"})

    def _answer(self, status: HTTPStatus, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Requests are not logged: probes and scrapes would drown everything else."""
