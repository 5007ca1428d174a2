"""`fit`: seeds per class, then passes of the streaming update over shuffled rows until the prototypes settle."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from prototide.core.labels import Label, Labels
from prototide.core.model import Model
from prototide.core.parameters import prototype_limits
from prototide.core.rows import CsrRows, of_matrix
from prototide.core.scikit import check_random_state


def fit(
    model: Model, rows: CsrRows, labels: Sequence[Label | None], weight: NDArray[np.float64], verbose: bool | None
) -> None:
    """Learns the labelled rows with a fresh model. ``verbose``: a progress bar; None: when the terminal is one."""
    parameters = model.parameters
    random = check_random_state(parameters["random_state"])
    chosen = np.flatnonzero(model.is_point(rows) & (weight > 0) & np.array([label is not None for label in labels]))
    if not chosen.size:
        raise ValueError("fit needs at least one labelled row with a non-zero feature and a weight above 0")
    labels, weight = [labels[row] for row in chosen.tolist()], weight[chosen]
    rows = of_matrix(rows.matrix()[chosen])
    names = Labels([label for label in dict.fromkeys(labels) if label is not None])
    model.labels.add(names.sorted_names())
    own_class = model.labels.numbers(labels)
    prepared = model.prepare(rows, weight)
    seeds = _seeds(prepared, own_class, weight, model, random)
    model.engine.seed(prepared.take(seeds), own_class[seeds], weight[seeds])
    from tqdm import tqdm  # only a fit shows a bar: all else works without it

    bar = tqdm(total=parameters["max_iters"], desc="fit", unit="pass", disable=None if verbose is None else not verbose)
    with bar:
        for number in range(parameters["max_iters"]):
            order = random.permutation(rows.count)
            step = model.engine.learn(prepared.take(order), own_class[order], weight[order], 1)
            model.calibrate(step)
            if number == 0:  # later passes have seen the rows
                model.judge(step)
            model.moved = step.movement
            shift = float(step.movement.shifts.max(initial=0.0))
            bar.set_postfix(shift=f"{shift:.2e}", centroids=int(model.engine.active.sum()))
            bar.update()
            if shift < parameters["tol"]:
                break
    if parameters["forget_classes"]:
        model.labels.forget(np.flatnonzero(model.engine.active == 0).tolist())


def _seeds(
    rows: CsrRows,
    own_class: NDArray[np.int32],
    weight: NDArray[np.float64],
    model: Model,
    random: np.random.RandomState,
) -> NDArray[np.int64]:
    """Rows that become the first prototypes: of each class as many as it may have, no two the same."""
    parameters = model.parameters
    limits = prototype_limits(model.labels.names, parameters["k_init"], parameters["k_list"])
    matrix = rows.matrix().astype(np.float64)
    norms = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    matrix.data /= np.repeat(norms, np.diff(rows.indptr))
    order = np.argsort(own_class, kind="stable")
    by_class = matrix[order]
    ends = np.cumsum(np.bincount(own_class, minlength=len(limits)))
    dense = np.zeros(rows.width)  # the last seed
    seeds = []
    for k, begin, end in zip(limits, np.append(0, ends[:-1]), ends, strict=True):
        candidates, share = order[begin:end], weight[order[begin:end]]
        distance = np.ones(candidates.size)  # to the nearest seed so far, squared
        most = min(k, candidates.size)
        units = by_class[begin:end] if most > 1 else None
        for number in range(most):
            spread = distance if number and parameters["init_method"] == "kmeans++" else (distance > 0).astype(float)
            spread = spread * share
            if spread.sum() <= 0:
                break
            seed = int(random.choice(candidates.size, p=spread / spread.sum()))
            seeds.append(int(candidates[seed]))
            if units is not None and number + 1 < most:
                entries = slice(units.indptr[seed], units.indptr[seed + 1])
                dense[units.indices[entries]] = units.data[entries]
                nearness = units @ dense
                dense[units.indices[entries]] = 0
                least = np.minimum(distance if number else np.inf, 2 - 2 * nearness)
                distance = np.where(nearness > 1 - 1e-9, 0.0, least)
    return np.array(seeds, np.int64)
