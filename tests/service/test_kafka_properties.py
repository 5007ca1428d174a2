import pytest
from confluent_kafka import Consumer, KafkaException, Producer

from prototide.service.kafka_properties import REFUSED, is_secret, refusal


@pytest.mark.parametrize(
    "name",
    [
        "sasl.password",
        "ssl.key.password",
        "ssl.keystore.password",
        "ssl.key.pem",
        "sasl.oauthbearer.client.secret",
        "sasl.oauthbearer.config",
        "SASL.PASSWORD",
    ],
)
def test_secrets_are_told_by_their_name(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize("name", ["sasl.username", "ssl.key.location", "ssl.ca.location", "ssl.certificate.pem", "key"])
def test_what_is_public_stays_readable(name: str) -> None:
    assert not is_secret(name)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_every_refused_property_is_one_that_a_client_knows(name: str) -> None:
    unknown = f'No such configuration property: "{name}"'
    assert unknown not in complaint(Consumer, name) or unknown not in complaint(Producer, name)


def complaint(client: type[Consumer] | type[Producer], name: str) -> str:
    with pytest.raises((KafkaException, TypeError, ValueError)) as refused:
        client({"group.id": "g", name: "", "no.such.property": ""})
    return str(refused.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("enable.ssl.certificate.verification", "False"), ("ssl.endpoint.identification.algorithm", "none")],
)
def test_certificate_checks_are_switched_off_by_name_only(name: str, value: str) -> None:
    assert refusal(name, value, unverified_allowed=False) is not None
    assert refusal(name, value, unverified_allowed=True) is None


def test_other_properties_pass() -> None:
    assert refusal("linger.ms", "5", unverified_allowed=False) is None
    assert refusal("enable.ssl.certificate.verification", "true", unverified_allowed=False) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("enable.ssl.certificate.verification", " False "),
        (" Enable.SSL.certificate.verification", "false"),
        ("ssl.endpoint.identification.algorithm", "NONE\t"),
        ("Isolation.Level ", "read_uncommitted"),
    ],
)
def test_spaces_and_capitals_hide_nothing(name: str, value: str) -> None:
    assert refusal(name, value, unverified_allowed=False) is not None
