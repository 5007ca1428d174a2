"""5,000 classes x 100,000 features in less than 2 GB."""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
import json
from pathlib import Path
import numpy as np
import scipy.sparse as sp
from prototide.core import FastKMeansClassifier

CLASSES, FEATURES, WORDS, ROWS = 5_000, 100_000, 40, 15_000
random = np.random.default_rng(0)
own = random.integers(0, FEATURES, (CLASSES, 3, 150))
labels = np.concatenate([np.arange(CLASSES), random.integers(0, CLASSES, ROWS - CLASSES)])
side = random.integers(0, 3, ROWS)
columns = np.take_along_axis(own[labels, side], random.integers(0, 150, (ROWS, WORDS)), axis=1)
background = np.minimum((FEATURES ** random.random((ROWS, 10))).astype(np.int64), FEATURES - 1)  # Zipf
indices = np.hstack([columns, background])
indptr = np.arange(0, indices.size + 1, WORDS + 10)
X = sp.csr_matrix((np.ones(indices.size, np.float32), indices.ravel(), indptr), (ROWS, FEATURES))
model = FastKMeansClassifier(k_init=3, max_iters=1)
model.fit(X, labels)  # seeds as many prototypes as there are different rows, three at most
seeded = int(model.fit_batch(X[:0], [])["active_centroids"])
for first in range(0, 1_000, 500):
    stats = model.fit_batch(X[first : first + 500], labels[first : first + 500])
right = float(np.mean(model.predict(X[-500:]) == labels[-500:]))
# Not getrusage's ru_maxrss: it begins at the size of the process that started this one.
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(json.dumps({
    "classes": stats["classes"], "features": model.n_features_in_, "prototypes": seeded, "right": right,
    "model_bytes": model.nbytes, "peak_bytes": int(peak.split()[1]) * 1024,
}))
"""


def test_five_thousand_classes_of_a_hundred_thousand_features_fit_in_two_gigabytes() -> None:
    answer = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    found = json.loads(answer.stdout)
    print(found)
    assert found["classes"] == 5_000
    assert found["features"] == 100_000
    assert found["prototypes"] > 10_000
    assert found["right"] > 0.9
    assert found["peak_bytes"] < 2e9
