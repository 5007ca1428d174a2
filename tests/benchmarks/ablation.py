"""What each part of the rule is worth: prequential accuracy with one part changed, minus that of the defaults."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

from prototide.core import parameters
from tests.benchmarks import report
from tests.benchmarks.data import DataSet, load
from tests.benchmarks.peers import Ours
from tests.benchmarks.prequential import BATCH_ROWS, measured

VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "one prototype per class": {"k_init": 1},
    "up to eight prototypes": {"k_init": 8},
    "no corrections": {"lambda_penalty": 0.0},
    "half corrections": {"lambda_penalty": 0.05},
    "double corrections": {"lambda_penalty": 0.2},
    "no idf": {"idf": False},
    "hard": {"soft": False},
    "softmax": {"soft_type": "softmax"},
    "row by row": {"update_rows": 1},
    "groups of 256": {"update_rows": 256},
    "half-life 5000": {"half_life": 5000},
    "half-life 2000": {"half_life": 2000},
    "no merging": {"merge_threshold": 0.0},
    "float16": {"dtype": "float16"},
    "bfloat16": {"dtype": "bfloat16"},
    "float64": {"dtype": "float64"},
}
CONSTANTS: dict[str, dict[str, float]] = {
    "no mutual information": {"PMI": 0.0, "TAU_BESIDE_PMI": parameters.TAU},
}
"""Of `prototide.core.parameters`: parts that no parameter switches off."""
SETS = ("trec6", "banking77", "clinc150", "stackoverflow20", "reuters_r52", "exploitdb")


def varied(variant: str, data: DataSet, advance: Callable[[], Any]) -> dict[str, float]:
    """What `measured` says of a variant of the rule."""
    with mock.patch.dict(vars(parameters), CONSTANTS.get(variant, {})):
        return measured(Ours(data, **VARIANTS.get(variant, {})), data, advance)


def main() -> None:
    """The program."""
    options = report.parser(__doc__, SETS)
    known = [*VARIANTS, *CONSTANTS]
    options.add_argument("--variants", type=report.names(known), default=known, help="default: all")
    chosen = options.parse_args()
    variants = list(dict.fromkeys(["default", *chosen.variants]))
    results: dict[str, dict[str, dict[str, float]]] = {variant: {} for variant in variants}
    with report.progress() as bar:
        for name in chosen.sets:
            data = report.or_exit(load, name, chosen.data)
            for variant in variants:
                task = bar.add_task(f"{name}, {variant}", total=-(-len(data.y) // BATCH_ROWS))
                results[variant][name] = varied(variant, data, partial(bar.advance, task))
                bar.remove_task(task)
    accuracy = {variant: {name: cell["accuracy"] for name, cell in cells.items()} for variant, cells in results.items()}
    default = accuracy.pop("default")
    report.show("prequential accuracy of the defaults", [{"": "default", **default}])
    differences: list[report.Record] = [
        {"variant": variant, **{name: round(value - default[name], 4) for name, value in cells.items()}}
        for variant, cells in accuracy.items()
    ]
    report.show("difference from the defaults", differences)
    report.write(chosen.json, "ablation", chosen, results)


if __name__ == "__main__":
    main()
