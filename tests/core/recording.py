"""Problems that the specification and the learner both solve. As a program: records what the specification answers.

The specification's float32 arrays are made float64 here: then no rounding decides a
comparison, and everything must agree.

    python -m tests.core.recording          (needs ../shared/spec/reference.py)
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from tests.core.streams import text_stream

SPECIFICATION = Path(__file__).parents[3] / "shared" / "spec" / "reference.py"
RECORDED = Path(__file__).parent / "recorded"
KERNELS = {"hard": 0, "linear": 1, "softmax": 2}


@dataclasses.dataclass(frozen=True)
class Problem:
    """A stream and parameters that both know."""

    seed: int
    rows: int
    features: int
    classes: int
    batch: int
    k: int = 3
    penalty: float = 0.1  # as the classifier counts
    half_life: float | None = None
    kernel: str = "linear"
    update_rows: int | str = "auto"
    idf: bool = True

    def stream(self) -> tuple[sp.csr_matrix, NDArray[np.int64]]:
        """Rows, one in fifty of them empty, and labels."""
        X, y = text_stream(self.seed, self.rows, self.features, self.classes)
        empty = np.arange(self.rows) % 50 == 49
        return sp.csr_matrix(sp.diags((~empty).astype(float)) @ X), y


def classifier_parameters(problem: Problem) -> dict[str, Any]:
    """For `FastKMeansClassifier`."""
    return {
        "k_init": problem.k,
        "lambda_penalty": problem.penalty,
        "half_life": problem.half_life,
        "idf": problem.idf,
        "soft": problem.kernel != "hard",
        "soft_type": "softmax" if problem.kernel == "softmax" else "linear",
        "update_rows": problem.update_rows,
        "truncation_threshold": 0.0,
    }


def specification_parameters(problem: Problem) -> dict[str, Any]:
    """For `StreamPrototypes`, in its units."""
    return {
        "k": problem.k,
        "lambda_penalty": 10 * problem.penalty,
        "half_life": problem.half_life,
        "running_idf": problem.idf,
        "kernel": KERNELS[problem.kernel],
        "update_rows": problem.update_rows,
    }


def replay(problem: Problem, predict: Callable[[Any], Any], learn: Callable[[Any, Any], Any]) -> list[int]:
    """Predicts each batch but the first, then learns it; the predictions."""
    X, y = problem.stream()
    predictions: list[int] = []
    for first in range(0, problem.rows, problem.batch):
        rows, labels = X[first : first + problem.batch], y[first : first + problem.batch]
        if first:
            predictions += predict(rows).tolist()
        learn(rows, labels)
    return predictions


PROBLEMS = {
    "default": Problem(1, 500, 40, 6, 64),
    "hard": Problem(2, 400, 30, 5, 50, kernel="hard", k=4),
    "softmax": Problem(3, 400, 30, 5, 50, kernel="softmax", k=2),
    "forgetting": Problem(4, 600, 40, 6, 37, half_life=100.0),
    "pure_k_means": Problem(5, 400, 40, 8, 100, penalty=0.0),
    "row_by_row": Problem(6, 300, 25, 4, 10, update_rows=1, idf=False, penalty=0.5),
    "maintenance": Problem(7, 2300, 30, 4, 256, half_life=60.0, k=4),
}


def specification(folder: Path) -> ModuleType:
    """The specification in float64. ``folder`` keeps its source, so that numba finds again what it compiled."""
    source = SPECIFICATION.read_text().replace("np.float32", "np.float64")
    path = folder / "specification_float64.py"
    if not path.exists() or path.read_text() != source:
        path.write_text(source)
    found = importlib.util.spec_from_file_location(path.stem, path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[path.stem] = module  # numba looks it up there
    found.loader.exec_module(module)
    return module


def main() -> None:
    """Writes one file per problem."""
    with tempfile.TemporaryDirectory() as folder:
        make = specification(Path(folder)).StreamPrototypes
        _record(make)


def _record(make: Callable[..., Any]) -> None:
    for name, problem in PROBLEMS.items():
        theirs = make(problem.features, **specification_parameters(problem))
        predictions = replay(problem, theirs.predict, lambda rows, labels, fit=theirs.fit: fit(rows, labels.tolist()))
        content = {
            "problem": dataclasses.asdict(problem),
            "sum_of_input": float(problem.stream()[0].sum()),
            "predictions": predictions,
            "masses": [round(float(mass), 6) for mass in theirs.n[theirs.kind == 1] / theirs.S[0]],
            "mean_loss": float(theirs.S[2]),
        }
        (RECORDED / f"{name}.json").write_text(json.dumps(content) + "\n")


if __name__ == "__main__":
    main()
