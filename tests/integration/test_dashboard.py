"""Every query of the dashboard, answered by a real Prometheus that scrapes the live service of the demo."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.kafka import free_port
from tests.test_deploy import ALERTS, PROMETHEUS, ROOT, dashboard_queries

PATIENCE_SECONDS = 240  # compiling the learner included
GRAFANA_VARIABLES = {
    "$instance": ".*",
    "$__rate_interval": "20s",
    "$__interval": "20s",
    "[1h]": "[20s]",
    "[$__range]": "[20s]",
}


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Prometheus with the repository's configuration, scraping a demo that runs."""
    if shutil.which("prometheus") is None:
        missing = "the dashboard is tested with Debian's package prometheus, which is not installed"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    folder = tmp_path_factory.mktemp("prometheus")
    service_port, port = free_port(), free_port()
    command = [sys.executable, "-m", "prototide.service", "demo", "--seconds", "600", "--port", str(service_port)]
    with (folder / "demo.log").open("wb") as demo_log, (folder / "prometheus.log").open("wb") as prometheus_log:
        demo = subprocess.Popen(command, stdout=demo_log, stderr=subprocess.STDOUT)
        server = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={_configuration(folder, service_port)}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=prometheus_log,
            stderr=subprocess.STDOUT,
        )
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            demo.send_signal(signal.SIGINT)
            server.wait(30)
            demo.wait(60)
    assert demo.returncode == 0, (folder / "demo.log").read_text()


def test_prometheus_answers_every_query_of_the_dashboard_with_data(prometheus: str) -> None:
    waiting = {query: "not asked yet" for query in dashboard_queries() if not query.startswith("label_values")}
    assert len(waiting) > 30
    deadline = time.monotonic() + PATIENCE_SECONDS
    while waiting and time.monotonic() < deadline:
        waiting = {query: answer for query in waiting if (answer := _answer(prometheus, query)) != "data"}
        time.sleep(0.5)
    assert not waiting


def test_the_instances_that_the_dashboard_offers_are_those_that_run(prometheus: str) -> None:
    assert "label_values(prototide_model_step, instance)" in dashboard_queries()
    deadline = time.monotonic() + PATIENCE_SECONDS
    instances: list[str] = []
    while not instances and time.monotonic() < deadline:
        instances = _get(f"{prometheus}/api/v1/label/instance/values?match[]=prototide_model_step") or []
        time.sleep(0.2)
    assert len(instances) == 1


def test_every_alert_rule_is_evaluated_without_error(prometheus: str) -> None:
    expected = {rule["alert"] for group in ALERTS["groups"] for rule in group["rules"]}
    deadline = time.monotonic() + PATIENCE_SECONDS
    health: dict[str, str] = {}
    while set(health) != expected or "unknown" in health.values():
        assert time.monotonic() < deadline, health
        groups = (_get(f"{prometheus}/api/v1/rules") or {"groups": []})["groups"]
        health = {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}
        time.sleep(0.2)
    assert set(health.values()) == {"ok"}


def _configuration(folder: Path, service_port: int) -> Path:
    """The repository's configuration, with another target and shorter intervals."""
    shutil.copy(ROOT / "deploy/prometheus/alerts.yml", folder)
    configuration = json.loads(json.dumps(PROMETHEUS))
    configuration["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    configuration["scrape_configs"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{service_port}"]
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(configuration))
    return path


def _answer(prometheus: str, query: str) -> str:
    """Says ``data`` when the query has at least one number as its answer."""
    for variable, value in GRAFANA_VARIABLES.items():
        query = query.replace(variable, value)
    data = _get(f"{prometheus}/api/v1/query?query={urllib.parse.quote(query)}")
    if data is None:
        return "no answer"
    numbers = [float(series["value"][1]) for series in data["result"]]
    return "data" if any(math.isfinite(number) for number in numbers) else f"no number in {data['result']}"


def _get(url: str) -> Any:
    """The data of an answer of Prometheus' API, None while it does not answer; a refused query is an error."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return json.load(answer)["data"]
    except urllib.error.HTTPError as refused:
        if refused.code == 400:
            raise AssertionError(f"{url}: {refused.read().decode()}") from None
        return None
    except OSError:
        return None
