"""Speed, memory and exactness on an accelerator: the headline workload, 15,000 prototypes, 100,000 features.

Needs torch, triton, numpy, scipy, scikit-learn and numba only. Each part prints its figures as it ends; the table with
targets comes last. `docs/gpu.md` says what was expected and why.

    python -m tests.benchmarks.gpu --parts device,original,lambda0,default --json gpu.json
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from prototide.core import FastKMeansClassifier
from prototide.core.engines.gpu import fast_scoring
from prototide.core.engines.gpu.engine import GpuEngine
from prototide.core.engines.gpu.entries import Entries
from prototide.core.engines.gpu.rows import DeviceRows, upload
from prototide.core.engines.gpu.scoring import slot_scores
from prototide.core.rows import canonical_rows
from tests.benchmarks.workload import Workload, make

Figures = dict[str, Any]
CHUNK, QUERIES, GROUP, MODES = 30_000, 131_072, 30_000, 3
TARGETS = {
    "lambda0": {"predict rows/s": 5e6, "predict from host rows/s": 3e6, "learn rows/s": 2e6, "memory GB": 7},
    "default": {"predict rows/s": 2e6, "learn rows/s": 5e5, "memory GB": 10},
}
_started = time.perf_counter()


def say(part: str, figures: Figures) -> None:
    """One line a figure, with the seconds since the start."""
    for name, value in figures.items():
        text = f"{value:,.4g}" if isinstance(value, float) else str(value)
        print(f"[{time.perf_counter() - _started:6.1f}] {part:>10}: {name} = {text}", flush=True)


def seconds(work: Callable[[], Any], repeats: int = 5) -> float:
    """Median seconds of a call, the device's work included, after one that warms up."""
    work()
    taken = []
    for _ in range(repeats):
        torch.cuda.synchronize()
        begun = time.perf_counter()
        work()
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - begun)
    return float(np.median(taken))


def device(_: argparse.Namespace) -> Figures:
    """Where this runs, and the two ceilings."""
    source = torch.randn(1 << 29, device="cuda")
    target = torch.empty_like(source)
    copied = 2 * 4 * source.numel() / seconds(lambda: target.copy_(source))
    matrix = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    return {
        "name": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "triton": importlib.import_module("triton").__version__,
        "copy bytes/s": copied,
        "bf16 product FLOP/s": 2 * 8192**3 / seconds(lambda: matrix @ matrix),
    }


def original(options: argparse.Namespace) -> Figures:
    """The original's algorithm: SparseCOO x dense centroids, scores as an N x K matrix, unit centroids blended."""
    stream = workload(options, 40_960, 1)
    K, D = options.classes * MODES, options.features
    centroids = torch.nn.functional.normalize(torch.rand(K, D, device="cuda"), dim=1)
    batch = 10_240
    coo = stream.X[:batch].tocoo()
    at = torch.tensor(np.stack([coo.row, coo.col]), device="cuda")
    X = torch.sparse_coo_tensor(at, torch.tensor(coo.data, device="cuda"), coo.shape).coalesce()
    owner = torch.tensor(stream.mode[:batch], device="cuda")

    def predict() -> torch.Tensor:
        return torch.sparse.mm(X, centroids.T).argmax(1)

    def learn() -> None:
        predict()
        chosen = torch.sparse_coo_tensor(
            torch.stack([owner, torch.arange(batch, device="cuda")]), torch.ones(batch, device="cuda"), (K, batch)
        )
        sums = torch.sparse.mm(chosen, X).to_dense()
        centroids.mul_(0.9).add_(sums, alpha=0.1)
        centroids.copy_(torch.nn.functional.normalize(centroids, dim=1))

    torch.cuda.reset_peak_memory_stats()
    figures = {"predict rows/s": batch / seconds(predict), "learn rows/s": batch / seconds(learn, 3)}
    return figures | {"memory GB": torch.cuda.max_memory_allocated() / 1e9}


def workload(options: argparse.Namespace, rows: int, seed: int, factor: int = 1) -> Workload:
    """Rows of the headline workload; every hidden mode is a class of its own."""
    return make(rows, options.features, options.classes * factor, MODES, seed=seed)


def learned(stream: Workload, lambda_penalty: float, dtype: str) -> tuple[FastKMeansClassifier, float]:
    """A model on the device that has learned the stream, and the rows/s of the classifier's last calls."""
    model = FastKMeansClassifier(k_init=1, lambda_penalty=lambda_penalty, dtype=dtype).to("cuda")
    rates = []
    for first in range(0, stream.mode.size, CHUNK):
        begun = time.perf_counter()
        rows = model.fit_batch(stream.X[first : first + CHUNK], stream.mode[first : first + CHUNK])["rows"]
        rates.append(rows / (time.perf_counter() - begun))
    return model, float(np.median(rates[-3:]))


def engine_of(model: FastKMeansClassifier) -> GpuEngine:
    """What computes inside."""
    engine = model._fitted.engine
    assert isinstance(engine, GpuEngine)
    return engine


def steady_learning(model: FastKMeansClassifier, more: Workload) -> float:
    """Rows/s of `GpuEngine.learn`, prediction included, of rows that are on the device already."""
    engine = engine_of(model)
    own = model._fitted.labels.numbers(more.mode.tolist()).astype(np.int32)
    there = upload(canonical_rows(more.X), engine.device, torch.float32)
    parts = [(there.part(f, f + GROUP), own[f : f + GROUP]) for f in range(0, own.size - GROUP + 1, GROUP)]
    taken = []
    for rows, classes in parts:
        torch.cuda.synchronize()
        begun = time.perf_counter()
        engine.learn(rows, classes, np.ones(GROUP), 1)
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - begun)
    return GROUP / float(np.median(taken[1:]))


def moved_bytes(engine: GpuEngine, rows: DeviceRows) -> float:
    """Bytes that scoring has to move, a row: its lists, the buffer (cleared, added to, read), the row itself."""
    vectors = engine._compute.vectors(engine._view())  # type: ignore[attr-defined]
    length = torch.diff(vectors.begin) * (vectors.hot_of < 0)
    listed = float(length[rows.indices.long()].sum()) / rows.count
    each = vectors.slot.element_size() + vectors.value.element_size()
    scattered = 2 * 32 * listed  # of a sector each, read and written
    return listed * each + scattered + 2 * 4 * vectors.bench.numel() + 8 * rows.indices.numel() / rows.count


def exactness(engine: GpuEngine, rows: DeviceRows) -> Figures:
    """Scores and winners of some rows against float64."""
    part, view = rows.part(0, 2048), engine._view()
    x = engine._unit_there(part)
    double = Entries(torch.float64, engine.device)
    double.key, double.M, double.R = view.entries.key, view.entries.M.double(), view.entries.R.double()
    exact = view.rule._replace(mantissa_bits=52)
    vectors = engine._compute.vectors(view)  # type: ignore[attr-defined]
    found = fast_scoring.scores(part, x, vectors)[:, : view.roster.used]
    worst, agree = 0.0, 0
    for first in range(0, part.count, 256):
        some = part.part(first, first + 256)
        values = x[int(part.ends[first]) : int(part.ends[first + 256])].double()
        score = slot_scores(some, values, double, view.roster, view.omega, exact)[2]
        mine = found[first : first + 256].double()
        worst = max(worst, float((mine - score).norm() / score.norm()))
        agree += int((mine.argmax(1) == score.argmax(1)).sum())
    return {"relative error": worst, "argmax agreement": agree / part.count}


def case(options: argparse.Namespace, lambda_penalty: float, dtype: str) -> Figures:
    """All figures of one model."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    model, whole = learned(workload(options, options.rows, 0), lambda_penalty, dtype)
    engine = engine_of(model)
    figures: Figures = {
        "dtype": dtype,
        "prototypes": int(engine.active.sum()),
        "entries": int(engine._store.key.numel()),
        "fit_batch rows/s (classifier)": whole,
        "learn rows/s": steady_learning(model, workload(options, 6 * GROUP, 2)),
    }
    asked = canonical_rows(workload(options, QUERIES, 5).X)
    there = upload(asked, engine.device, torch.float32)
    figures["predict rows/s"] = asked.count / seconds(lambda: engine.rank(there, 1))
    figures["predict from host rows/s"] = asked.count / seconds(lambda: engine.rank(asked, 1))
    figures["predict top 3 rows/s"] = asked.count / seconds(lambda: engine.rank(there, 3))
    figures["bytes a row, predicting"] = moved_bytes(engine, there)
    figures["bytes/s, predicting"] = figures["predict rows/s"] * figures["bytes a row, predicting"]
    figures["memory GB"] = torch.cuda.max_memory_allocated() / 1e9
    figures["memory need told"] = str(engine.need())
    return figures | exactness(engine, there)


def tune(options: argparse.Namespace) -> Figures:
    """Top-1 rows/s by size of the buffer, hot features and tiles; the parts of a step of learning by device time."""
    from prototide.core.engines.gpu import fast_scoring, vectors

    model, _ = learned(workload(options, options.rows, 0), 0.0, "bfloat16")
    engine, figures = engine_of(model), {}
    there = upload(canonical_rows(workload(options, QUERIES, 5).X), engine.device, torch.float32)
    scorer, kept = engine._compute._scorer, (vectors.HOT_SHARE, vectors.MOST_HOT)  # type: ignore[attr-defined]

    def tried(name: str) -> None:
        engine._changed(structure=True)
        figures[name] = there.count / seconds(lambda: engine.rank(there, 1), 3)
        say("tune", {name: figures[name]})

    for share, most in ((1 / 4, 256), (1 / 8, 512), (1 / 16, 1024), (1 / 32, 2048)):
        vectors.HOT_SHARE, vectors.MOST_HOT = share, most
        for bits in (23, 25, 26, 27):
            scorer._size = 1 << bits
            tried(f"{most} hot, buffer 2^{bits}")
    vectors.HOT_SHARE, vectors.MOST_HOT = kept
    scorer._size = 1 << 26
    for tiles in ((128, 128, 64), (64, 256, 64), (128, 256, 32), (128, 256, 64)):
        fast_scoring.BM, fast_scoring.BN, fast_scoring.BK = tiles
        tried(f"tiles {tiles}")
    with torch.profiler.profile() as profiled:
        steady_learning(model, workload(options, 3 * GROUP, 2))
    print(profiled.key_averages().table(sort_by="cuda_time_total", row_limit=30, max_name_column_width=60))
    return figures


def same_twice(options: argparse.Namespace) -> Figures:
    """Whether a stream learned twice gives the same bytes."""
    stream = workload(options, 90_000, 3)
    states = [engine_of(learned(stream, 0.1, "bfloat16")[0]).state() for _ in range(2)]
    return {"same bytes": all(array.tobytes() == states[1][name].tobytes() for name, array in states[0].items())}


def many(options: argparse.Namespace) -> Figures:
    """Ten times the prototypes."""
    model, whole = learned(workload(options, 600_000, 0, factor=10), 0.0, "bfloat16")
    engine = engine_of(model)
    asked = upload(canonical_rows(workload(options, 32_768, 5, factor=10).X), engine.device, torch.float32)
    return {
        "prototypes": int(engine.active.sum()),
        "predict rows/s": asked.count / seconds(lambda: engine.rank(asked, 1), 3),
        "fit_batch rows/s (classifier)": whole,
        "memory GB": torch.cuda.max_memory_allocated() / 1e9,
    }


def service(options: argparse.Namespace) -> Figures:
    """Decode, learn, encode without a broker, records of 4,096 rows; needs msgpack."""
    if importlib.util.find_spec("msgpack") is None:
        return {"not run": "msgpack is not here"}
    from prototide.service.wire import decode_batch, encode_batch

    model, _ = learned(workload(options, 120_000, 0), 0.1, "bfloat16")
    more = workload(options, 40_960, 4)
    records = [encode_batch(more.X[f : f + 4096], more.mode[f : f + 4096]) for f in range(0, 40_960, 4096)]
    begun = time.perf_counter()
    for record in records:
        batch = decode_batch(record)
        model.learn(batch.X, batch.labels)
    return {"decode and learn rows/s": more.mode.size / (time.perf_counter() - begun)}


def accuracy(options: argparse.Namespace) -> Figures:
    """Prequential accuracy of hashed sets (`tests.benchmarks.hashed`), on the device and on the CPU."""
    figures: Figures = {}
    for path in options.hashed:
        stored = np.load(path)
        X, y = _matrix(stored), stored["y"]
        for place in ("cuda", "cpu"):
            model, right = FastKMeansClassifier().to(place), 0
            for first in range(0, y.size, 256):
                found = model.learn(X[first : first + 256], y[first : first + 256]).labels
                right += sum(a == b for a, b in zip(found, y[first : first + 256].tolist(), strict=True))
            figures[f"{path.stem} on {place}"] = right / y.size
    return figures or {"not run": "no --hashed FILE.npz"}


def _matrix(stored: Any) -> Any:
    return sp.csr_matrix((stored["data"], stored["indices"], stored["indptr"]), tuple(stored["shape"]))


PARTS: dict[str, Callable[[argparse.Namespace], Figures]] = {
    "device": device,
    "lambda0": lambda options: case(options, 0.0, "bfloat16"),
    "default": lambda options: case(options, 0.1, "bfloat16"),
    "float32": lambda options: case(options, 0.1, "float32"),
    "twice": same_twice,
    "accuracy": accuracy,
    "original": original,
    "service": service,
    "many": many,
    "tune": tune,
}
MEASURED = [part for part in PARTS if part != "tune"]


def main() -> None:
    """The program."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument(
        "--parts",
        type=lambda text: text.split(","),
        default=[part for part in PARTS if part != "tune"],
        help=",".join(PARTS),
    )
    options.add_argument("--rows", type=int, default=300_000, help="rows learned before anything is timed")
    options.add_argument("--classes", type=int, default=5_000)
    options.add_argument("--features", type=int, default=100_000)
    options.add_argument("--hashed", type=Path, nargs="*", default=[], help="data sets for the accuracy")
    options.add_argument("--json", type=Path, help="file for the results")
    chosen = options.parse_args()
    if not torch.cuda.is_available():
        options.exit(2, "torch finds no CUDA device here: nothing was measured\n")
    results: dict[str, Figures] = {}
    for part in chosen.parts:
        try:
            results[part] = PARTS[part](chosen)
        except Exception:  # the other parts are worth having
            traceback.print_exc()
            results[part] = {"failed": traceback.format_exc(limit=-1)}
        say(part, results[part])
        gc.collect()
        torch.cuda.empty_cache()
        if chosen.json is not None:
            chosen.json.write_text(json.dumps(results, indent=2, default=str) + "\n")
    _compare(results)


def _compare(results: dict[str, Figures]) -> None:
    copied = results.get("device", {}).get("copy bytes/s")
    print(f"\n{'figure':44} {'measured':>14} {'target':>14} {'original':>14}")
    for part, targets in TARGETS.items():
        for name, target in targets.items():
            value, beside = results.get(part, {}).get(name), results.get("original", {}).get(name)
            print(f"{part + ': ' + name:44} {_text(value):>14} {_text(float(target)):>14} {_text(beside):>14}")
        moved = results.get(part, {}).get("bytes/s, predicting")
        if moved and copied:
            print(f"{part + ': bytes/s of the copy bandwidth':44} {moved / copied:>13.0%}")


def _text(value: Any) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else "-" if value is None else str(value)


if __name__ == "__main__":
    main()
