"""What stands in Dockerfile, docker-compose.yml and deploy/ against the code: names, ports, variables, metrics."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from prometheus_client import CollectorRegistry
from typer.testing import CliRunner

from prototide.service.cli import app
from prototide.service.metrics import Metrics
from prototide.service.settings import Settings, load
from prototide.service.steps import StepStats

ROOT = Path(__file__).parent.parent
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PROMETHEUS = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
ALERTS = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())
DATASOURCES = yaml.safe_load((ROOT / "deploy/grafana/provisioning/datasources/prometheus.yml").read_text())
PROVIDERS = yaml.safe_load((ROOT / "deploy/grafana/provisioning/dashboards/prototide.yml").read_text())
DASHBOARD = json.loads((ROOT / "deploy/grafana/dashboards/prototide.json").read_text())

A_STEP = StepStats(
    number=1,
    trained=1,
    records=1,
    dead_letters={"decode": 1},
    rows=1,
    rows_learned=1,
    rows_unknown=0,
    errors=np.array([False]),
    model={"shift": 0.1},
    class_shift={"a": 0.1},
    model_bytes=1,
    decode_seconds=0.1,
    fit_seconds=0.1,
    commit_seconds=0.1,
    step_seconds=0.3,
    latency_seconds=np.array([0.3]),
    lag={("train", 0): 0},
)
ADDED_BY_PROMETHEUS = {"instance", "job", "le", "quantile"}
OURS = [name for name, service in COMPOSE["services"].items() if service.get("image") == "prototide:latest"]


def dashboard_queries() -> list[str]:
    """Every query of the dashboard: panels, annotations, variables."""
    queries = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]
    queries += [annotation["expr"] for annotation in DASHBOARD["annotations"]["list"]]
    return queries + [v["definition"] for v in DASHBOARD["templating"]["list"] if v["type"] == "query"]


def alert_queries() -> list[str]:
    return [rule["expr"] for group in ALERTS["groups"] for rule in group["rules"]]


def metrics_of_the_code() -> dict[str, set[str]]:
    """Name of each sample (with _bucket, _sum, _count, _total) -> its labels, after a step in which all of it moved."""
    registry = CollectorRegistry()
    metrics = Metrics(registry, detectors=["adwin"])
    metrics.observe(A_STEP)
    return {sample.name: set(sample.labels) for metric in registry.collect() for sample in metric.samples}


def metrics_used(query: str) -> Iterator[tuple[str, set[str]]]:
    """Each of our metrics in a query with the labels that it is selected by."""
    for name, selector in re.findall(r"\b(prototide_\w+)(?:\{([^}]*)\})?", query):
        yield name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector))


def labels_grouped_by(query: str) -> set[str]:
    return {label.strip() for labels in re.findall(r"\bby \(([^)]*)\)", query) for label in labels.split(",")}


@pytest.mark.parametrize("query", dashboard_queries() + alert_queries())
def test_every_metric_and_label_in_a_query_is_one_of_the_code(query: str) -> None:
    known = metrics_of_the_code()
    used = list(metrics_used(query))
    assert used or "up{" in query or "process_resident_memory_bytes" in query
    for name, selected in used:
        assert name in known, f"{name} in {query}"
        assert selected <= known[name] | ADDED_BY_PROMETHEUS, query
        assert labels_grouped_by(query) <= known[name] | ADDED_BY_PROMETHEUS, query


def test_every_query_of_a_label_in_a_legend_keeps_that_label() -> None:
    known = metrics_of_the_code()
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            in_legend = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            names = [name for name, _ in metrics_used(target["expr"])]
            kept = labels_grouped_by(target["expr"]) or {label for name in names for label in known[name]}
            assert in_legend <= kept, target["expr"]


def test_the_dashboard_shows_what_the_service_is_for() -> None:
    queries = " ".join(dashboard_queries())
    for name in (
        "prequential_accuracy", "shift", "centroids", "classes", "rows_predicted_total", "end_to_end_latency_seconds",
        "consumer_lag_records", "dead_letters_total", "drift_detected_total",
    ):  # fmt: skip
        assert f"prototide_{name}" in queries, name


def test_panels_have_ids_titles_and_places_of_their_own() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        columns, lines = range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
        cells = set(itertools.product(columns, lines))
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells


def test_variables_in_queries_are_those_of_the_dashboard_or_grafanas_own() -> None:
    defined = {variable["name"] for variable in DASHBOARD["templating"]["list"]} | {"__rate_interval", "__interval"}
    assert set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD))) - {"__all"} <= defined


def test_alerts_say_what_is_wrong_and_how_grave_it_is() -> None:
    rules = [rule for group in ALERTS["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules) >= 5
    for rule in rules:
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert rule["annotations"]["summary"]


def test_addresses_between_the_services_of_the_stack_exist() -> None:
    job = PROMETHEUS["scrape_configs"][0]
    assert job["job_name"] == "prototide"
    assert job["static_configs"][0]["targets"] == [f"service:{http_port()}"]
    assert DATASOURCES["datasources"][0]["url"] == "http://prometheus:9090"
    assert DATASOURCES["datasources"][0]["uid"] == DASHBOARD["templating"]["list"][0]["current"]["value"]
    kafka = COMPOSE["services"]["kafka"]["environment"]
    for name in OURS:
        servers = environment(name)["PROTOTIDE_KAFKA__BOOTSTRAP_SERVERS"]
        assert f"INSIDE://{servers}" in kafka["KAFKA_ADVERTISED_LISTENERS"]
    assert {"service", "prometheus", "kafka"} <= set(COMPOSE["services"])


def test_ports_of_the_service_are_the_default_of_its_setting() -> None:
    port = http_port()
    assert f"EXPOSE {port}\n" in DOCKERFILE
    assert f"'PROTOTIDE_HTTP__PORT', '{port}'" in DOCKERFILE
    assert COMPOSE["services"]["service"]["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert f"127.0.0.1:{port}/readyz" in COMPOSE["services"]["service"]["healthcheck"]["test"][-1]


@pytest.mark.parametrize("name", OURS)
def test_environment_of_our_services_is_accepted_as_settings(name: str) -> None:
    given = {**image_environment(), **environment(name)}
    assert any(variable.startswith("PROTOTIDE_") for variable in given)
    settings = load(environ=given)
    assert settings.checkpoint.uri.startswith("/var/lib/prototide/")
    used = {row.source for row in settings.effective()}
    assert {variable for variable in given if variable.startswith("PROTOTIDE_")} <= used


@pytest.mark.parametrize("name", [*OURS, "Dockerfile"])
def test_commands_and_their_options_exist(name: str) -> None:
    if name == "Dockerfile":
        arguments = json.loads(re.search(r"^CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)[1])  # type: ignore[index]
    else:
        arguments = COMPOSE["services"][name]["command"]
    assert accepted(arguments)


def test_a_command_that_does_not_exist_would_be_noticed() -> None:
    assert not accepted(["run", "--no-such-option"])
    assert not accepted(["no-such-command"])


def test_services_wait_for_what_they_need() -> None:
    services = COMPOSE["services"]
    for name, service in services.items():
        for needed, how in service.get("depends_on", {}).items():
            assert needed in services, name
            if how["condition"] == "service_healthy":
                assert services[needed]["healthcheck"]["test"], f"{name} waits for the health of {needed}"
    assert services["topics"]["depends_on"] == {"kafka": {"condition": "service_healthy"}}
    assert services["service"]["depends_on"] == {"topics": {"condition": "service_completed_successfully"}}
    assert services["demo-producer"]["profiles"] == ["demo"]


def test_images_are_pinned() -> None:
    for name, service in COMPOSE["services"].items():
        if name not in OURS:
            assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+", service["image"]), name
    assert re.search(r"^ARG BASE_IMAGE=python:3\.\d+-slim", DOCKERFILE, re.MULTILINE)


def test_paths_that_are_mounted_copied_or_named_exist() -> None:
    for service in COMPOSE["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (ROOT / source).exists() if source.startswith(".") else source in COMPOSE["volumes"], volume
    for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert f"!{source}" in (ROOT / ".dockerignore").read_text().splitlines()
    for rules in PROMETHEUS["rule_files"]:
        assert (ROOT / "deploy/prometheus" / rules).exists()
    mounts = [v.split(":")[1] for v in COMPOSE["services"]["grafana"]["volumes"]]
    assert PROVIDERS["providers"][0]["options"]["path"] in mounts
    home = COMPOSE["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (ROOT / "deploy/grafana/dashboards" / Path(home).name).exists()


def test_the_grace_period_of_the_container_is_longer_than_the_services() -> None:
    grace = float(COMPOSE["services"]["service"]["stop_grace_period"].removesuffix("s"))
    assert grace > Settings().shutdown.grace_s


def test_the_image_runs_as_nobody_special() -> None:
    last_stage = DOCKERFILE.rpartition("\nFROM ")[2]
    user = re.search(r"^USER (\d+):\d+$", last_stage, re.MULTILINE)
    assert user is not None
    assert int(user[1]) > 0
    assert "HEALTHCHECK" in last_stage


needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool: Debian's package prometheus")


@needs_promtool
def test_promtool_accepts_configuration_and_rules() -> None:
    said = promtool("check", "config", ROOT / "deploy/prometheus/prometheus.yml")
    assert f"{len(alert_queries())} rules found" in said


@needs_promtool
def test_alerts_fire_for_what_they_are_named_after_and_not_for_a_healthy_service() -> None:
    assert "SUCCESS" in promtool("test", "rules", ROOT / "tests/alerts_test.yml")


def promtool(*arguments: str | Path) -> str:
    checked = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    return checked.stdout


def http_port() -> int:
    return Settings().http.port


def environment(name: str) -> dict[str, str]:
    return {variable: str(value) for variable, value in COMPOSE["services"][name]["environment"].items()}


def image_environment() -> dict[str, str]:
    pairs = re.findall(r"^(?:ENV|   ) (\w+)=(\S+)", DOCKERFILE.rpartition("\nFROM ")[2], re.MULTILINE)
    assert ("PYTHONUNBUFFERED", "1") in pairs
    return dict(pairs)


def accepted(arguments: list[str]) -> bool:
    """Whether the command line knows the command and its options: parsed before --help is answered."""
    return CliRunner().invoke(app, [*arguments, "--help"]).exit_code == 0
