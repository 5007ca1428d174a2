"""scikit-learn's own checks of an estimator, each with its outcome: python -m tests.core.estimator_checks"""

from __future__ import annotations

import os

os.environ["SCIPY_ARRAY_API"] = "1"  # else one check is skipped; SciPy reads it when it is imported

import json
import sys
import warnings

from sklearn.utils.estimator_checks import check_estimator

from prototide.core import FastKMeansClassifier

ONLINE = (
    "the order of rows matters to one-pass learning: a row of weight 2 is one step of double size, the same row twice "
    "is two steps; fails for scikit-learn's SGDClassifier too"
)
EXPECTED_FAILURES = {
    "check_sample_weight_equivalence_on_dense_data": ONLINE,
    "check_sample_weight_equivalence_on_sparse_data": ONLINE,
}


def outcomes(estimator: FastKMeansClassifier) -> list[dict[str, str]]:
    """One entry for every check that was run: check, status (passed, failed, skipped, xfail), why."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(estimator, expected_failed_checks=EXPECTED_FAILURES, on_skip=None, on_fail=None)
    return [
        {
            "check": result["check_name"],
            "status": result["status"],
            "why": result["expected_to_fail_reason"]
            or ("" if result["exception"] is None else str(result["exception"])),
        }
        for result in results
    ]


def main(parameters: str = "{}") -> None:
    """One JSON object a line."""
    for outcome in outcomes(FastKMeansClassifier(n_threads=1, **json.loads(parameters))):
        print(json.dumps(outcome))


if __name__ == "__main__":
    main(*sys.argv[1:])
