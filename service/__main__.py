"""`prototide` and `python -m prototide.service`."""

from __future__ import annotations

import os
import sys

# The learner's threads wait awake from one kernel to the next, and sleep while there is nothing to learn instead of
# keeping their cores busy; read when they start.
if os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE").upper() == "PASSIVE":
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")


def main() -> None:
    """Runs the command line; says what to install when only the light client is there."""
    try:
        from prototide.service.cli import app
    except ModuleNotFoundError as missing:
        sys.exit(
            f"prototide: the commands need the package {missing.name!r}: pip install '.[service]' in its source folder"
        )
    app()


if __name__ == "__main__":
    main()
