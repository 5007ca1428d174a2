"""Out of memory while growing: the batch is refused whole, the model is unchanged, the message has the numbers."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from prototide.core import FastKMeansClassifier, memory
from prototide.core.engines.plain import PlainEngine
from prototide.core.parameters import rule_of
from tests.core.conftest import MakeClassifier
from tests.core.inspecting import fingerprint
from tests.core.streams import text_stream

PROGRAM = """
import json, resource, sys
import numpy as np
import scipy.sparse as sp
from tests.core.conftest import ENGINES
from tests.core.inspecting import fingerprint
from tests.core.streams import text_stream

engine, allowance, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

def batch(number):
    random = np.random.default_rng(number)
    columns = random.integers(0, 200_000, (size, 60))
    X = sp.csr_matrix((np.ones(columns.size, np.float32), columns.ravel(), np.arange(0, columns.size + 1, 60)))
    X.sum_duplicates()
    return sp.csr_matrix((X.data, X.indices, X.indptr), (size, 200_000)), random.integers(0, 10**6, size)

def bytes_of_process():
    return int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()

warm, labels = text_stream(0, 3000)
ENGINES[engine](k_init=2).fit_batch(warm, labels)  # compiles
model, told = ENGINES[engine](k_init=2), None
none = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (bytes_of_process() + allowance, none[1]))
for learned in range(40):
    try:
        model.fit_batch(*batch(learned))
    except MemoryError as error:
        told = str(error)
        break
resource.setrlimit(resource.RLIMIT_AS, none)
model_bytes = model.nbytes
refused = fingerprint(model)
reference = ENGINES[engine](k_init=2)
for number in range(learned):
    reference.fit_batch(*batch(number))
same = refused == fingerprint(reference)
for each in (model, reference):
    each.fit_batch(*batch(learned))
print(json.dumps({"told": told, "learned": learned, "same": same, "model_bytes": model_bytes,
                  "goes_on": fingerprint(model) == fingerprint(reference), "size": size}))
"""


@pytest.mark.parametrize("engine", ["plain", "indexed"])
@pytest.mark.parametrize(("mebibytes", "size"), [(1, 1000), (200, 500)])
def test_a_batch_that_the_system_has_no_memory_for_is_refused_whole(engine: str, mebibytes: int, size: int) -> None:
    arguments = [sys.executable, "-c", PROGRAM, engine, str(mebibytes << 20), str(size)]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["told"].startswith(f"no memory for a batch of {size} rows: learning it may take up to ")
    assert f"the model has {found['model_bytes']} bytes" in found["told"]
    assert found["same"]
    assert found["goes_on"]
    assert (found["learned"] > 0) == (mebibytes > 1)


def test_a_refused_batch_leaves_classes_labels_and_statistics_alone(
    make_classifier: MakeClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = text_stream(0, 300)
    for distance in ("cosine", "euclidean"):
        model = make_classifier(distance=distance, novelty="auto")
        model.fit_batch(X[:200], y[:200])
        before = fingerprint(model)
        with monkeypatch.context() as patched:
            patched.setattr(memory, "COPIES", 2**62 // max(1, model.nbytes))
            with pytest.raises(MemoryError, match=r"unchanged\. Pass fewer rows"):
                model.learn(X[200:], [f"new {label}" for label in y[200:]])
            assert model.learn(X[200:], None).labels != []  # predicting needs no room in the model
        assert fingerprint(model) == before


def test_the_bound_grows_with_the_model_the_rows_and_what_they_may_change() -> None:
    least = {"model_bytes": 1000, "scratch_bytes": 0, "rows": 10, "non_zeros": 100, "changes": 3}
    base = memory.most_bytes(**least)
    assert base > 2 * 1000
    assert all(memory.most_bytes(**{**least, name: value + 1000}) > base for name, value in least.items())
    memory.ensure(base, lambda: 1000, 10)
    with pytest.raises(MemoryError, match=f"up to {2**62} bytes more, the model has 1000 bytes"):
        memory.ensure(2**62, lambda: 1000, 10)


def test_a_large_first_batch_of_few_classes_is_taken(make_classifier: MakeClassifier) -> None:
    rows = 60_000
    X = sp.csr_matrix((np.ones(rows), np.arange(rows) % 20, np.arange(rows + 1)), (rows, 20))
    model = make_classifier(k_init=1, lambda_penalty=0)
    assert model.fit_batch(X, np.arange(rows) % 10)["rows"] == rows


def test_what_many_rows_of_many_classes_may_need_is_no_multiple_of_both() -> None:
    engine = PlainEngine(rule_of(FastKMeansClassifier().get_params()), np.float32)
    assert engine.bytes_to_learn(300_000, 0, 5_000, 3) < 4e9
