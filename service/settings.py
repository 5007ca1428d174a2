"""The settings: one frozen tree, read once at start; weakest first: defaults, a TOML file, the environment, flags.

``load`` is the package's only reader of the environment. Secrets (librdkafka properties whose name says so, and
whatever came by ``_FILE``) are masked in every dump, representation and error.
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self, get_origin

from pydantic import Field, PrivateAttr, SecretStr, ValidationError, model_validator
from pydantic.fields import FieldInfo

from prototide.service import settings_sections as sections
from prototide.service.errors import PersonMustAct
from prototide.service.kafka_properties import is_secret
from prototide.service.settings_sources import PREFIX, Given, Names, from_environment, from_flags, from_toml
from prototide.service.settings_types import MASK, Section, shown

_SHOULD = re.compile(r"^(Input|String) should")


class Settings(Section):
    """Every setting; ``settings.batch.max_rows`` is what the tables call ``batch.max_rows``."""

    start_from: Literal["earliest", "latest"] = Field(
        default="earliest", description="where a new model starts; never used once there is a checkpoint"
    )
    delivery: Literal["exactly_once", "at_least_once"] = Field(
        default="exactly_once", description="promise for predictions; at_least_once: for brokers without transactions"
    )
    learn: bool = Field(default=True, description="false: predict only, the model is frozen")
    kafka: sections.Kafka = sections.Kafka()
    topics: sections.Topics = sections.Topics()
    batch: sections.Batch = sections.Batch()
    commit: sections.Commit = sections.Commit()
    limits: sections.RecordLimits = sections.RecordLimits()
    core: sections.Core = sections.Core()
    predictions: sections.Predictions = sections.Predictions()
    checkpoint: sections.Checkpoint = sections.Checkpoint()
    dead_letters: sections.DeadLetters = sections.DeadLetters()
    drift: sections.Drift = sections.Drift()
    metrics: sections.MetricsSettings = sections.MetricsSettings()
    http: sections.Http = sections.Http()
    log: sections.Log = sections.Log()
    instance: sections.Instance = sections.Instance()
    shutdown: sections.Shutdown = sections.Shutdown()

    _given: Mapping[str, Given] = PrivateAttr(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _derive(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Defaults that depend on other settings."""
        group = _part(data, "kafka").get("group_id", sections.Kafka().group_id)
        port = _part(data, "http").get("port", sections.Http().port)
        return data | {
            "topics": {"journal": f"{group}.journal"} | _part(data, "topics"),
            "instance": {"id": f"{socket.gethostname()}:{port}"} | _part(data, "instance"),
        }

    @model_validator(mode="after")
    def _topics_differ(self) -> Self:
        names = [self.topics.train, self.topics.predictions, self.topics.dead_letters, self.topics.journal]
        if len(set(names)) < len(names):
            raise ValueError(f"topics.* = {names}: must be four different topics")
        return self

    def fingerprint(self) -> dict[str, Any]:
        """What changes the model, as JSON values: ``core.*``, and the limits that decide which records it learns."""
        parts = {"core": self.core.fingerprint(), "limits": asdict(self.limits.record())}
        return {f"{part}.{name}": value for part, values in parts.items() for name, value in values.items()}

    def effective(self) -> list[Effective]:
        """Every setting with its value (secrets masked), its source and its help, in the order of the tree."""
        return [row for leaf in documented() for row in self._effective(leaf)]

    def _effective(self, leaf: Documented) -> Iterator[Effective]:
        value: Any = self
        for part in leaf.name.split("."):
            value = getattr(value, part)
        if isinstance(value, dict) and value:
            for key, each in value.items():
                name = f"{leaf.name}.{key}"
                yield Effective(name, shown(each), self._source(name), leaf.help)
        else:
            given = self._given.get(leaf.name)
            hidden = given is not None and given.secret
            yield Effective(leaf.name, MASK if hidden else shown(value), self._source(leaf.name), leaf.help)

    def _source(self, name: str) -> str:
        return self._given[name].source if name in self._given else "default"

    def _remember(self, given: Mapping[str, Given]) -> None:
        self._given = given
        hidden = {name for name, each in given.items() if each.secret}
        self._hidden = frozenset(hidden)
        for section in type(self).model_fields:
            part = getattr(self, section)
            if isinstance(part, Section):
                part._hidden = frozenset(name.partition(".")[2] for name in hidden if name.startswith(f"{section}."))


@dataclass(frozen=True, slots=True)
class Effective:
    """One row of ``prototide config``."""

    name: str
    value: Any
    source: str
    help: str


@dataclass(frozen=True, slots=True)
class Documented:
    """One setting as the documentation tells it."""

    name: str
    default: str
    help: str
    is_text: bool
    is_table: bool


def documented() -> list[Documented]:
    """Every setting that exists, in the order of the tree."""
    leaves = []
    for name, info in Settings.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, Section):
            leaves += [_document(f"{name}.{inner}", each) for inner, each in info.annotation.model_fields.items()]
        else:
            leaves.append(_document(name, info))
    return leaves


def _document(name: str, info: FieldInfo) -> Documented:
    extra = info.json_schema_extra
    default = str(extra["derived"]) if isinstance(extra, dict) else as_text(info.default)
    return Documented(
        name=name,
        default=default,
        help=info.description or "",
        is_text=info.annotation is str or get_origin(info.annotation) is Literal,
        is_table=get_origin(info.annotation) is dict,
    )


def as_text(value: object) -> str:
    """A value as a person would write it after ``--set name=``."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def load(
    config_file: Path | None = None,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
) -> Settings:
    """The effective settings; raises PersonMustAct that lists every problem at once.

    `config_file` defaults to the file that ``PROTOTIDE_CONFIG`` names; `overrides` are ``a.b=value``.
    """
    leaves = documented()
    names = Names(
        leaves={leaf.name: leaf.is_text for leaf in leaves if not leaf.is_table},
        tables=frozenset(leaf.name for leaf in leaves if leaf.is_table),
    )
    path = config_file or (Path(environ[f"{PREFIX}CONFIG"]) if environ.get(f"{PREFIX}CONFIG") else None)
    layers = [from_environment(environ, names), from_flags(overrides, names)]
    if path is not None:
        layers.insert(0, from_toml(path, names))
    given = {name: each for layer in layers for name, each in layer.given.items()}
    problems = [problem for layer in layers for problem in layer.problems]
    settings = None
    try:
        settings = Settings.model_validate(_nested(given, names))
    except ValidationError as error:
        problems += _wrong_values(error, given)
    # Raised outside the except clause: the validation error's chain may hold a secret.
    if settings is None or problems:
        raise PersonMustAct(
            f"wrong settings: {'; '.join(problems)}", "`prototide config --help` says where settings live"
        )
    settings._remember(given)
    return settings


def _part(data: Mapping[str, Any], section: str) -> dict[str, Any]:
    part = data.get(section, {})
    return dict(part) if isinstance(part, Mapping) else part.model_dump()


def _nested(given: Mapping[str, Given], names: Names) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, each in given.items():
        table = names.table_of(name)
        path = [*table.split("."), name.removeprefix(f"{table}.")] if table else name.split(".")
        node = tree
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = SecretStr(str(each.value)) if table and each.secret else each.value
    return tree


def _wrong_values(error: ValidationError, given: Mapping[str, Given]) -> list[str]:
    """One line for each wrong setting: name, value, source, what is allowed."""
    allowed: dict[str, list[str]] = {}
    for each in error.errors(include_input=False, include_url=False, include_context=False):
        name = _leaf_of(each["loc"], given)
        text = _SHOULD.sub("must", each["msg"].removeprefix("Value error, "))
        allowed.setdefault(name, []).append(text)
    return [_wrong_value(name, " or ".join(dict.fromkeys(texts)), given) for name, texts in allowed.items()]


def _leaf_of(location: tuple[int | str, ...], given: Mapping[str, Given]) -> str:
    for length in range(len(location), 0, -1):
        name = ".".join(str(part) for part in location[:length])
        if name in given:
            return name
    # A message about several settings names them itself.
    return ".".join(str(part) for part in location[:2]) if len(location) > 1 else ""


def _wrong_value(name: str, allowed: str, given: Mapping[str, Given]) -> str:
    if name not in given:
        return f"{name}: {allowed}" if name else allowed
    each = given[name]
    value = MASK if each.secret or is_secret(name) else repr(shown(each.value))[:100]
    return f"{name} = {value} ({each.source}): {allowed}"
