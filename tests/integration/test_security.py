"""A broker that asks who you are and what you may: the service works with exactly the documented rights."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from prototide.service.settings import load
from prototide.service.topics import create_topics, wanted_topics
from tests.support.kafka_jars import KafkaUnavailableError
from tests.support.secure_kafka import PASSWORD, USER, SecureBroker
from tests.support.service import Service, consume_all, produce, records

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]

Right = tuple[str, str, str]  # kind of resource, name, operation
DOCUMENT = Path(__file__).parents[2] / "docs" / "reliability.md"


def documented_rights(service: Service) -> list[Right]:
    """The table of rights in the document, with the settings' names in place."""
    names = {
        "topics.train": service.settings.topics.train,
        "topics.predictions": service.settings.topics.predictions,
        "topics.dead_letters": service.settings.topics.dead_letters,
        "topics.journal": service.settings.topics.journal,
        "kafka.group_id": service.settings.kafka.group_id,
    }
    rows = re.findall(
        r"^\| (Topic|Group|TransactionalId) \| `([a-z._]+)` \| ([A-Za-z, ]+) \|", DOCUMENT.read_text(), re.M
    )
    return [(kind, names[name], operation) for kind, name, operations in rows for operation in operations.split(", ")]


_KINDS = {
    "Topic": ResourceType.TOPIC,
    "Group": ResourceType.GROUP,
    "TransactionalId": ResourceType.TRANSACTIONAL_ID,
}
_OPERATIONS = {
    "Read": AclOperation.READ,
    "Write": AclOperation.WRITE,
    "Describe": AclOperation.DESCRIBE,
    "DescribeConfigs": AclOperation.DESCRIBE_CONFIGS,
}


@pytest.fixture(scope="module")
def broker() -> Iterator[SecureBroker]:
    try:
        made = SecureBroker()
    except KafkaUnavailableError as error:
        if os.environ.get("PROTOTIDE_REQUIRE_KAFKA") == "1":
            pytest.fail(f"PROTOTIDE_REQUIRE_KAFKA=1, but there is no Kafka from its jars: {error}")
        pytest.skip(f"no Kafka from its jars: {error}")
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.fixture
def service(
    broker: SecureBroker, tmp_path: Path, topic_name: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Service]:
    """Its topics are there; it has no rights yet."""
    secret = tmp_path / "common.json"
    secret.write_text(
        f'{{"security.protocol": "SASL_SSL", "sasl.mechanisms": "SCRAM-SHA-512", "sasl.username": "{USER}", '
        f'"sasl.password": "{PASSWORD}", "ssl.ca.location": "{broker.certificate}"}}\n'
    )
    with Service(broker.bootstrap_servers, tmp_path, topic_name) as made:
        create_topics(made.settings, wanted_topics(made.settings, 2, 1))
        made.secure_overrides = [f"kafka.bootstrap_servers={broker.secure_servers}"]
        made.environment = {"PROTOTIDE_KAFKA__COMMON_FILE": str(secret)}
        yield made


def bindings(rights: list[Right]) -> list[AclBinding]:
    return [
        AclBinding(
            _KINDS[kind],
            name,
            ResourcePatternType.LITERAL,
            f"User:{USER}",
            "*",
            _OPERATIONS[operation],
            AclPermissionType.ALLOW,
        )
        for kind, name, operation in rights
    ]


def grant(broker: SecureBroker, rights: list[Right]) -> None:
    """These and no others."""
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    everything = AclBindingFilter(
        ResourceType.ANY, None, ResourcePatternType.ANY, None, None, AclOperation.ANY, AclPermissionType.ANY
    )
    for done in admin.delete_acls([everything]).values():
        done.result()
    for done in admin.create_acls(bindings(rights)).values():
        done.result()


def test_it_works_with_exactly_the_documented_rights(broker: SecureBroker, service: Service) -> None:
    rights = documented_rights(service)
    assert len(rights) > 10
    grant(broker, rights)
    produce(service.settings, [*records(4), b"bad"])
    service.start_ready(*service.secure_overrides)
    assert len(consume_all(service.settings, service.settings.topics.predictions, 4)) == 4
    assert len(consume_all(service.settings, service.settings.topics.dead_letters, 1)) == 1
    assert service.terminate() == 0
    service.start_ready(*service.secure_overrides)  # a replay, too
    produce(service.settings, records(2, seed=1))
    assert len(consume_all(service.settings, service.settings.topics.predictions, 6)) == 6
    assert service.terminate() == 0
    assert "AUTHORIZATION" not in service.logged()
    assert PASSWORD not in service.logged()


@pytest.mark.parametrize(
    ("setting", "operation"),
    [
        ("kafka.group_id", "Write"),
        ("topics.train", "Read"),
        ("topics.journal", "Write"),
        ("topics.journal", "DescribeConfigs"),
        ("topics.predictions", "Write"),
    ],
)
def test_a_missing_right_is_exit_78_and_named(
    broker: SecureBroker, service: Service, setting: str, operation: str
) -> None:
    section, _, field = setting.partition(".")
    name = getattr(getattr(service.settings, section), field)
    grant(broker, [right for right in documented_rights(service) if right[1:] != (name, operation)])
    produce(service.settings, records(2))
    service.start(*service.secure_overrides)
    assert service.wait(120) == 78
    assert "right" in service.last_line()


def test_a_wrong_password_is_exit_78(broker: SecureBroker, service: Service) -> None:
    wrong = service.folder / "wrong.json"
    wrong.write_text(Path(service.environment["PROTOTIDE_KAFKA__COMMON_FILE"]).read_text().replace(PASSWORD, "wrong"))
    service.environment = {"PROTOTIDE_KAFKA__COMMON_FILE": str(wrong)}
    service.start(*service.secure_overrides)
    assert service.wait(120) == 78
    assert "sasl" in service.last_line()


def test_the_secret_is_masked_wherever_settings_are_shown(service: Service) -> None:
    settings = load(None, [*service.overrides, *service.secure_overrides], service.environment)
    shown = [f"{each.name}={each.value}" for each in settings.effective()]
    assert PASSWORD not in f"{settings!r} {settings.model_dump_json()} {shown}"
    assert settings.kafka.properties("producer")["sasl.password"] == PASSWORD
