"""The README's table of settings, written from the settings themselves: python -m tests.support.settings_table"""

from __future__ import annotations

import re
from pathlib import Path

from prototide.service.settings import documented

README = Path(__file__).parents[2] / "README.md"
PLACE = re.compile(r"(<!-- settings: [^\n]*-->\n).*(<!-- end of settings -->)", re.DOTALL)


def table() -> str:
    rows = ["| setting | default | meaning |", "|---|---|---|"]
    for setting in documented():
        meaning = setting.help.replace("|", r"\|")
        rows.append(f"| `{setting.name}` | `{setting.default}` | {meaning} |")
    return "\n".join(rows) + "\n"


def with_table(text: str) -> str:
    return PLACE.sub(lambda found: found[1] + table() + found[2], text)


if __name__ == "__main__":
    README.write_text(with_table(README.read_text()))
    print(f"wrote the settings into {README.name}")
