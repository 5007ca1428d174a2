"""What can stop the service, told apart by what the caller must do.

    ServiceError
    ├── RestartMayHelp    exit code 75: broker away, fatal client error
    └── PersonMustAct     exit code 78: settings, missing topic, foreign checkpoint

Every message says what happened, with the value, and ``advice`` what to do. A record that cannot be decoded is not
here: it raises :class:`prototide.service.wire.RejectedRecord` and becomes a dead letter.
"""

from __future__ import annotations

from typing import ClassVar

NEW_MODEL = "start a new model: `prototide run --fresh`"  # the last advice


class ServiceError(Exception):
    """Ends the process with ``exit_code`` and one line: what happened, and what to do."""

    exit_code: ClassVar[int]

    def __init__(self, what: str, advice: str) -> None:
        super().__init__(f"{what}; {advice}")
        self.what = what
        self.advice = advice


class RestartMayHelp(ServiceError):  # noqa: N818 - named by what the caller must do
    """A restart may help: nothing is wrong that a person has to change."""

    exit_code = 75


class PersonMustAct(ServiceError):  # noqa: N818
    """A restart would fail the same way: a person must change something first."""

    exit_code = 78
