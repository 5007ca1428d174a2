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
from functools import cache
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
CHUNK, QUERIES, MODES = 30_000, 131_072, 3
GROUP = 30_000  # two rows a class: what update_rows="auto" comes to after 960,000 rows
STEADY = 8  # groups of which the last ones are timed
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
    return _made(rows, options.features, options.classes * factor, seed)


@cache
def _made(rows: int, features: int, classes: int, seed: int) -> Workload:
    return make(rows, features, classes, MODES, seed=seed)


def learned(stream: Workload, lambda_penalty: float, dtype: str) -> FastKMeansClassifier:
    """A model on the device that has learned the stream."""
    model = FastKMeansClassifier(k_init=1, lambda_penalty=lambda_penalty, dtype=dtype).to("cuda")
    for first in range(0, stream.mode.size, CHUNK):
        model.fit_batch(stream.X[first : first + CHUNK], stream.mode[first : first + CHUNK])
    return model


def engine_of(model: FastKMeansClassifier) -> GpuEngine:
    """What computes inside."""
    engine = model._fitted.engine
    assert isinstance(engine, GpuEngine)
    return engine


def steady_learning(model: FastKMeansClassifier, more: Workload, group: int) -> float:
    """Rows/s of `GpuEngine.learn`, prediction included, of rows that are on the device already; the median group's."""
    engine = engine_of(model)
    own = model._fitted.labels.numbers(more.mode.tolist()).astype(np.int32)
    there = upload(canonical_rows(more.X), engine.device, torch.float32)
    parts = [(there.part(f, f + group), own[f : f + group]) for f in range(0, own.size - group + 1, group)]
    engine.rule = engine.rule._replace(update_rows=group)
    taken = []
    for rows, classes in parts:
        torch.cuda.synchronize()
        begun = time.perf_counter()
        engine.learn(rows, classes, np.ones(group), 1)
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - begun)
    engine.rule = engine.rule._replace(update_rows=0)
    return group / float(np.median(taken[len(taken) // 3 :]))


def whole_learning(model: FastKMeansClassifier, more: Workload) -> float:
    """Rows/s of `FastKMeansClassifier.learn`: rows and labels come from the host, answers go there."""
    taken = []
    for first in range(0, more.mode.size, CHUNK):
        begun = time.perf_counter()
        model.learn(more.X[first : first + CHUNK], more.mode[first : first + CHUNK])
        taken.append(time.perf_counter() - begun)
    return CHUNK / float(np.median(taken[1:]))


def moved_bytes(engine: GpuEngine, rows: DeviceRows) -> float:
    """Bytes that scoring has to move, a row: its lists, the product (written and read), its factor, the row itself."""
    vectors = engine._compute.vectors(engine._view())  # type: ignore[attr-defined]
    length = torch.diff(vectors.begin) * (vectors.hot_of < 0)
    listed = float(length[rows.indices.long()].sum()) / rows.count
    each = vectors.slot.element_size() + vectors.value.element_size()
    return listed * each + 8 * vectors.cls.numel() + 4 * vectors.dense.shape[0] + 8 * rows.indices.numel() / rows.count


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
    model = learned(workload(options, options.rows, 0), lambda_penalty, dtype)
    engine = engine_of(model)
    asked = canonical_rows(workload(options, QUERIES, 5).X)
    there = upload(asked, engine.device, torch.float32)
    figures: Figures = {
        "dtype": dtype,
        "prototypes": int(engine.active.sum()),
        "entries": int(engine._store.key.numel()),
        "memory need told": str(engine.need()),
        "predict rows/s": asked.count / seconds(lambda: engine.rank(there, 1)),
        "predict from host rows/s": asked.count / seconds(lambda: engine.rank(asked, 1)),
        "predict top 3 rows/s": asked.count / seconds(lambda: engine.rank(there, 3)),
        "bytes a row, predicting": moved_bytes(engine, there),
    }
    figures["bytes/s, predicting"] = figures["predict rows/s"] * figures["bytes a row, predicting"]
    more = workload(options, STEADY * GROUP, 2)
    figures["learn rows/s"] = steady_learning(model, more, GROUP)
    figures["learn rows/s, groups of C"] = steady_learning(model, workload(options, 3 * GROUP, 3), GROUP // 2)
    figures["learn rows/s (classifier, from host)"] = whole_learning(model, workload(options, 4 * GROUP, 4))
    figures["entries afterwards"] = int(engine_of(model)._store.key.numel())
    figures["memory need told, learning"] = str(engine.need(workload(options, GROUP, 9).X.nnz, GROUP))
    figures["memory GB"] = torch.cuda.max_memory_allocated() / 1e9
    return figures | exactness(engine, there)


def tune(options: argparse.Namespace) -> Figures:
    """Top-1 rows/s by hot features and size of the product; the parts of a step of learning by device time."""
    from prototide.core.engines.gpu import fast_scoring, vectors

    model = learned(workload(options, options.rows, 0), 0.0, "bfloat16")
    engine, figures = engine_of(model), {}
    there = upload(canonical_rows(workload(options, QUERIES, 5).X), engine.device, torch.float32)
    kept = vectors.HOT_SHARE, vectors.MOST_HOT, fast_scoring.SLOTS_AT_ONCE
    for share, most in ((1 / 8, 512), (1 / 16, 1024), (1 / 32, 2048)):
        vectors.HOT_SHARE, vectors.MOST_HOT = share, most
        for bits in (24, 25, 26, 27):
            fast_scoring.SLOTS_AT_ONCE = 1 << bits
            engine._changed(structure=True)
            name = f"{most} hot, product of 2^{bits}"
            figures[name] = there.count / seconds(lambda: engine.rank(there, 1), 3)
    vectors.HOT_SHARE, vectors.MOST_HOT, fast_scoring.SLOTS_AT_ONCE = kept
    engine._changed(structure=True)
    with torch.profiler.profile() as profiled:
        steady_learning(model, workload(options, 3 * GROUP, 3), GROUP)
    print(profiled.key_averages().table(sort_by="cuda_time_total", row_limit=30, max_name_column_width=60))
    return figures


def too_large(options: argparse.Namespace) -> Figures:
    """What a user is told when the device is full, and that nothing was changed."""
    model = learned(workload(options, 3 * 4096, 7), 0.1, "bfloat16")
    more = workload(options, 4096, 8)
    before = engine_of(model).state()
    torch.cuda.empty_cache()
    occupied = torch.empty(torch.cuda.mem_get_info()[0] - (1 << 29), dtype=torch.uint8, device="cuda")
    try:
        model.learn(more.X, more.mode)
        told = "nothing"
    except MemoryError as refused:
        told = str(refused)
    after = engine_of(model).state()
    del occupied
    torch.cuda.empty_cache()
    model.learn(more.X, more.mode)
    unchanged = all((array == after[name]).all() for name, array in before.items())
    return {"told": told, "nothing was changed": unchanged}


def same_twice(options: argparse.Namespace) -> Figures:
    """Whether a stream learned twice gives the same bytes."""
    stream = workload(options, 90_000, 3)
    states = [engine_of(learned(stream, 0.1, "bfloat16")).state() for _ in range(2)]
    return {"same bytes": all(array.tobytes() == states[1][name].tobytes() for name, array in states[0].items())}


def many(options: argparse.Namespace) -> Figures:
    """Ten times the prototypes."""
    torch.cuda.reset_peak_memory_stats()
    stream = workload(options, 420_000, 0, factor=10)
    model = learned(Workload(stream.X[:300_000], stream.y[:300_000], stream.mode[:300_000]), 0.0, "bfloat16")
    engine = engine_of(model)
    asked = upload(canonical_rows(stream.X[300_000:320_000]), engine.device, torch.float32)
    return {
        "prototypes": int(engine.active.sum()),
        "predict rows/s": asked.count / seconds(lambda: engine.rank(asked, 1), 3),
        "learn rows/s (classifier, from host)": whole_learning(
            model, Workload(stream.X[330_000:], stream.y[330_000:], stream.mode[330_000:])
        ),
        "memory GB": torch.cuda.max_memory_allocated() / 1e9,
    }


def service(options: argparse.Namespace) -> Figures:
    """Decode, learn, encode, one after the other, without a broker: steps of 128 records of 256 rows; needs msgpack."""
    if importlib.util.find_spec("msgpack") is None:
        return {"not run": "msgpack is not here"}
    from prototide.service.stacking import stack
    from prototide.service.wire import Batch, Limits, Predictions, encode_batch
    from prototide.service.wire_batches import decode_batches
    from prototide.service.wire_predictions import encode_parts

    model, more = learned(workload(options, options.rows, 0), 0.1, "bfloat16"), workload(options, 4 * GROUP, 4)
    size, spent = 128 * 256, {"decode": 0.0, "learn": 0.0, "encode": 0.0}
    rows = more.mode.size // size * size
    for first in range(0, rows, size):
        begins = range(first, first + size, 256)
        records = [encode_batch(more.X[b : b + 256], more.mode[b : b + 256]) for b in begins]
        times = [time.perf_counter()]
        batches = [batch for batch in decode_batches(records, Limits()) if isinstance(batch, Batch)]
        stacked = stack(batches)
        times.append(time.perf_counter())
        found = model.learn(stacked.X, stacked.labels, top_k=3)
        times.append(time.perf_counter())
        assert found.top_labels is not None
        assert found.top_probs is not None
        whole = Predictions(
            source=("", 0, 0), step=0, labels=found.labels, scores=found.scores, prototypes=found.prototypes, top_k=3,
            top_labels=[label for row in found.top_labels for label in row], top_probs=found.top_probs.ravel(),
        )  # fmt: skip
        encode_parts(whole, [(("", 0, 0), batch.truth, None, 0) for batch in batches], stacked.bounds.tolist())
        times.append(time.perf_counter())
        if first:  # the first step compiles
            for name, took in zip(spent, np.diff(times), strict=True):
                spent[name] += float(took)
    timed = rows - size
    figures: Figures = {f"{name} rows/s": timed / took for name, took in spent.items()}
    return figures | {"decode, learn and encode rows/s": timed / sum(spent.values())}


def accuracy(options: argparse.Namespace) -> Figures:
    """Prequential accuracy of hashed sets (`tests.benchmarks.hashed`): device and CPU, and with larger groups."""
    figures: Figures = {}
    for path in options.hashed:
        stored = np.load(path)
        X, y = _matrix(stored), stored["y"]
        for place in ("cuda", "cpu"):
            figures[f"{path.stem} on {place}"] = _right(FastKMeansClassifier().to(place), X, y, 256)
        for rows in ("auto", 256, 1024, 4096):
            model = FastKMeansClassifier(update_rows=rows).to("cuda")
            _right(model, X[:256], y[:256], 256)
            figures[f"{path.stem}, groups of {rows}"] = _right(model, X[256:], y[256:], 4096)
    return figures or {"not run": "no --hashed FILE.npz"}


def _right(model: FastKMeansClassifier, X: Any, y: Any, batch: int) -> float:
    right = 0
    for first in range(0, y.size, batch):
        truth = y[first : first + batch]
        found = model.learn(X[first : first + batch], truth).labels
        right += sum(a == b for a, b in zip(found, truth.tolist(), strict=True))
    return right / y.size


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
    "too-large": too_large,
    "tune": tune,
}


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
    device_name = results.get("device", {}).get("name", "")
    print(f"\n{device_name:44} {'measured':>14} {'target':>14} {'original':>14}")
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
