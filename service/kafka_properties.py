"""Which librdkafka properties a person may not set, and which of them hide a secret."""

from __future__ import annotations

import re
from collections.abc import Mapping

_SECRET = re.compile(
    r"passw|secret|token|credential|passphrase|private|jaas|oauthbearer\.config|api[._-]?key|(^|[._-])key[._-]?pem|^ssl[._]key$"
)
_SERVICE_SETS_IT = "the service sets it"
_GUARANTEE = "the delivery guarantee rests on the service's own value"
_CODE = "it takes code, not a value"

# Aliases of librdkafka included: an alias is the same property.
REFUSED: Mapping[str, str] = {
    "bootstrap.servers": "set kafka.bootstrap_servers",
    "metadata.broker.list": "set kafka.bootstrap_servers",
    "group.id": "set kafka.group_id",
    "transactional.id": "set kafka.group_id",
    "message.max.bytes": "set limits.prediction_bytes",
    "group.instance.id": _SERVICE_SETS_IT,
    "isolation.level": _GUARANTEE,
    "auto.offset.reset": _GUARANTEE,
    "enable.auto.commit": _GUARANTEE,
    "auto.commit.enable": _GUARANTEE,
    "enable.auto.offset.store": _GUARANTEE,
    "enable.partition.eof": _GUARANTEE,
    "acks": _GUARANTEE,
    "request.required.acks": _GUARANTEE,
    "enable.idempotence": _GUARANTEE,
    "enable.gapless.guarantee": _GUARANTEE,
    "delivery.report.only.error": _GUARANTEE,
    "allow.auto.create.topics": _GUARANTEE,
    **dict.fromkeys(("error_cb", "stats_cb", "throttle_cb", "oauth_cb", "on_commit", "on_delivery", "logger"), _CODE),
}

_UNVERIFIED: Mapping[str, frozenset[str]] = {
    "enable.ssl.certificate.verification": frozenset({"false", "f", "0"}),
    "ssl.endpoint.identification.algorithm": frozenset({"none"}),
}


def is_secret(name: str) -> bool:
    """Whether a property of that name is masked wherever it is shown."""
    return _SECRET.search(name.lower()) is not None


def refusal(name: str, value: str, *, unverified_allowed: bool) -> str | None:
    """Why the property may not be set, or None when it may."""
    name = name.strip().lower()
    if name in REFUSED:
        return f"may not be set here: {REFUSED[name]}"
    if not unverified_allowed and value.strip().lower() in _UNVERIFIED.get(name, ()):
        return "switches certificate checks off: only with kafka.allow_unverified_certificates = true"
    return None
