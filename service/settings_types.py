"""What the sections of the settings are made of: kinds of values with what they allow, and masking."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from prototide.service.kafka_properties import is_secret

MASK = "**********"
_URL_USER = re.compile(r"://[^/@\s]*@")


def _no_truth_value(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    return value


def _properties(value: object) -> object:
    """librdkafka takes text; what its name calls a secret is wrapped, so that nothing prints it by accident."""
    if not isinstance(value, Mapping):
        return value
    return {key: _property(key, each) for key, each in value.items()}


def _property(key: str, value: object) -> str | SecretStr:
    if isinstance(value, SecretStr):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return SecretStr(str(value)) if is_secret(key) else str(value)
    raise ValueError(f"property {key} must be text, a number, true or false")


def clear_text(value: str | SecretStr) -> str:
    """The value itself, for the library that needs it."""
    return value.get_secret_value() if isinstance(value, SecretStr) else value


Number = BeforeValidator(_no_truth_value)
Count = Annotated[int, Number, Field(ge=1, le=2**31 - 1)]
Size = Annotated[ByteSize, Number, Field(ge=1)]
Amount = Annotated[float, Number, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Number, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Number, Field(ge=0, le=1)]
Topic = Annotated[str, Field(pattern=r"^[a-zA-Z0-9._-]{1,249}$")]
Text = Annotated[str, Field(min_length=1)]
Properties = Annotated[dict[str, str | SecretStr], BeforeValidator(_properties)]


class Section(BaseModel):
    """A frozen group of settings whose hidden values never show, whoever prints or dumps it."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    _hidden: frozenset[str] = PrivateAttr(frozenset())

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, SecretStr(MASK) if name in self._hidden else value

    @model_serializer(mode="wrap")
    def _masked(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: MASK if name in self._hidden else value for name, value in handler(self).items()}


def shown(value: object) -> object:
    """A value for people: secrets and the user part of URLs masked, sizes as plain numbers."""
    if isinstance(value, SecretStr):
        return MASK
    if isinstance(value, str):
        return _URL_USER.sub(f"://{MASK}@", value)
    return int(value) if isinstance(value, ByteSize) else value
