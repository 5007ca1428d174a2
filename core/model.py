"""The model: an engine, and what stands between it and the caller's labels, rows and probabilities."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from operator import is_not
from typing import Any, NamedTuple, Self, TypedDict

import numpy as np
from numpy.typing import NDArray

from prototide.core import memory
from prototide.core.calibration import Calibration
from prototide.core.compiling import model_lock
from prototide.core.engines.answers import Step
from prototide.core.engines.frozen import FrozenEngine
from prototide.core.engines.indexed import IndexedEngine
from prototide.core.engines.movement import Movement
from prototide.core.engines.plain import PlainEngine
from prototide.core.labels import UNLABELLED, Label, Labels
from prototide.core.lift import EuclideanLift
from prototide.core.novelty import Novelty
from prototide.core.parameters import novelty_quantile, prototype_limits, rule_of, same_parameters
from prototide.core.rows import CsrRows, scaled

PROBABILITY_DEPTH = 32  # `top_probs` are normalised over at least so many classes
LARGE_BYTES = 1 << 20  # of an array
RANKED_BYTES = 128  # of a class in the ranking of a row, and of what is told of it


class LearnStats(TypedDict):
    """What one call of `fit_batch` or `learn` did."""

    rows: int  # rows learned: labelled, with non-zeros, of weight above 0
    shift: float  # mass-weighted mean distance that prototypes moved (1 - cosine), newborn ones excluded
    shift_max: float  # the largest
    active_centroids: int  # prototypes after the call
    classes: int  # classes known after the call
    new_classes: int
    born: int  # prototypes that became active
    pruned: int
    num_merged: int


@dataclass(frozen=True)
class Learned:
    """What `learn` predicted for each row just before it learned it, and what learning did."""

    labels: list[Label | None]  # None: unknown (no class yet, a row without non-zeros, or rejected as novel)
    scores: NDArray[np.float32]  # (n,) of the winning class, also when rejected as novel; 0 without one
    prototypes: NDArray[np.int64]  # (n,) stable id of the winning prototype, -1 for none
    stats: LearnStats
    top_labels: list[list[Label | None]] | None = None  # n lists of top_k labels, best first, None fills up
    top_probs: NDArray[np.float32] | None = None  # (n, top_k), 0 where the label is None


class _Taken(NamedTuple):
    step: Step
    points: NDArray[np.bool_]  # (n,) rows that can be learned
    unknown: NDArray[np.bool_]  # (n,) rows that are answered unknown
    names: NDArray[np.object_]  # labels by class number, before any was forgotten
    stats: LearnStats


def new_engine(parameters: Mapping[str, Any], engine: str, device: str = "cpu") -> PlainEngine:
    """The engine by name: "indexed", "plain" or "gpu"; on another device than "cpu" the last, which needs torch."""
    dtype = np.float64 if parameters["dtype"] == "float64" else np.float32
    if device != "cpu" or engine == "gpu":
        from prototide.core.engines.gpu.engine import GpuEngine  # torch is optional

        return GpuEngine(rule_of(parameters), dtype, device)
    kind = PlainEngine if engine == "plain" else IndexedEngine
    return kind(rule_of(parameters), dtype)


class Model:
    """State of one classifier. Its callers hold ``lock``, so that readers never see half a step."""

    def __init__(self, parameters: Mapping[str, Any], engine: str = "indexed", device: str = "cpu") -> None:
        self.lock = model_lock()
        self.parameters = parameters
        self._engine, self.device = engine, device
        self.engine = new_engine(parameters, engine, device)
        self.labels = Labels()
        self.lift = EuclideanLift() if parameters["distance"] == "euclidean" else None
        self.calibration = Calibration(parameters["soft_type"])
        self.novelty = self._fresh_novelty()
        self.width = 0  # columns of the rows learned
        self.moved: Movement | None = None  # by the last step that learned
        self._followed: Mapping[str, Any] | None = None
        self._limits: tuple[Any, NDArray[np.int64]] = (None, np.zeros(0, np.int64))  # what they were made of, limits

    def follows(self, parameters: Mapping[str, Any]) -> bool:
        """Whether `follow` has been called with these parameters, checked then, and nothing has changed since."""
        return same_parameters(parameters, self._followed)

    def follow(self, parameters: Mapping[str, Any]) -> None:
        """Takes parameters as they are now (scikit-learn's ``set_params``)."""
        if self.follows(parameters):
            return
        before = self.parameters
        if parameters["distance"] != before["distance"]:
            if self.engine.rows_learned:
                raise ValueError(
                    f"distance={parameters['distance']!r} is not allowed: the model has learned with "
                    f"distance={before['distance']!r}; fit it anew, or clone it"
                )
            self.lift = EuclideanLift() if parameters["distance"] == "euclidean" else None
        self.parameters = parameters
        self.engine.rule = rule_of(parameters)
        if parameters["dtype"] != before["dtype"] and not self.frozen:
            self._exchange_engine()
        if parameters["soft_type"] != before["soft_type"]:
            self.calibration = Calibration(parameters["soft_type"])
        if any(before[name] != parameters[name] for name in ("novelty", "half_life")):
            self.novelty = self._fresh_novelty()
        self._followed = parameters

    def _exchange_engine(self) -> None:
        engine = new_engine(self.parameters, self._engine, self.device)
        engine.restore(self.engine.state())
        self.engine = engine  # only when all is there

    def to(self, device: str) -> None:
        """Goes on on that device."""
        if device == self.device:
            return
        if self.frozen:
            raise ValueError(
                f"device={device!r} is not allowed: a frozen model answers on 'cpu'; move it before freeze()"
            )
        before, self.device = self.device, device
        try:
            self._exchange_engine()
        except BaseException:
            self.device = before
            raise

    def _large_arrays(self) -> Iterator[NDArray[Any]]:
        """The engine's, whichever it is."""
        for held in vars(self.engine).values():
            for array in held if isinstance(held, tuple) else (held,):
                if isinstance(array, np.ndarray) and array.nbytes >= LARGE_BYTES:
                    yield array

    def copy_room(self) -> list[NDArray[Any]]:
        """Memory for `copied`: what takes longest of a copy is to get it from the system."""
        room = [np.empty(array.shape, array.dtype) for array in self._large_arrays()]
        for array in room:
            array.fill(0)  # now the memory is there
        return room

    def copied(self, room: Iterable[NDArray[Any]] = ()) -> Model:
        """Another model, as this one is now; in ``room``, as far as it fits, which may hold nothing else."""
        copies: dict[int, Any] = {}  # id of an array -> its copy
        free = list(room)
        for array in self._large_arrays():
            kind = array.shape, array.dtype
            place = next((at for at, each in enumerate(free) if (each.shape, each.dtype) == kind), None)
            if place is not None:
                copies[id(array)] = free.pop(place)
                np.copyto(copies[id(array)], array)
        twin = copy.copy(self)
        twin.lock = model_lock()
        twin.engine, twin.labels, twin.lift = copy.deepcopy((self.engine, self.labels, self.lift), copies)
        twin.calibration, twin.novelty = copy.deepcopy((self.calibration, self.novelty))
        return twin

    def _fresh_novelty(self) -> Novelty | None:
        quantile = novelty_quantile(self.parameters)
        return None if quantile is None else Novelty(quantile, self.parameters["half_life"])

    # --- learning ---

    def learn(self, rows: CsrRows, labels: Sequence[Label | None], weight: NDArray[np.float64], top_k: int) -> Learned:
        """Predicts each row, then learns it if it has a label, non-zeros and weight."""
        taken = self._take_in(rows, labels, weight, max(top_k, PROBABILITY_DEPTH) if top_k else 1)
        learned = self._learned(taken, top_k)
        self.calibrate(taken.step)  # after: a row's own label says nothing about its probabilities
        return learned

    def fit_batch(self, rows: CsrRows, labels: Sequence[Label | None], weight: NDArray[np.float64]) -> LearnStats:
        """The same, but nobody is told what was predicted: the engine may do without."""
        taken = self._take_in(rows, labels, weight, 0 if self.novelty is None else 1)
        self.calibrate(taken.step)
        return taken.stats

    def calibrate(self, step: Step) -> None:
        """Learns probabilities from the rows of a step that were scored against all classes."""
        for truth, scores in zip(step.probe_classes, step.probe_scores, strict=True):
            self.calibration.learn(scores, truth)

    def _take_in(
        self, rows: CsrRows, labels: Sequence[Label | None], weight: NDArray[np.float64], depth: int
    ) -> _Taken:
        points = self.is_point(rows)
        learnable = points & (weight > 0)
        distinct = set(labels)
        if None in distinct:
            learnable &= np.fromiter(map(is_not, labels, repeat(None)), np.bool_, len(labels))
        if self.lift is not None:
            self.lift.check(rows)  # nothing is changed before the last check
        if self.frozen and learnable.any():
            raise ValueError("a frozen model learns no more: pass no labels, or take a model from before freeze()")
        known, before = self.labels, self.engine.counts
        unseen = {label for label in distinct if label is not None and label not in known}
        added = [label for label, good in zip(labels, learnable, strict=True) if good] if unseen else []
        self._ensure_memory(rows, depth, int(learnable.sum()), len(unseen.intersection(added)))
        new_classes = known.add(added)
        own_class = np.where(learnable, known.numbers(labels), UNLABELLED).astype(np.int32)
        lifted = self.prepare(rows, np.where(learnable, weight, 0.0))
        step = self.engine.learn(lifted, own_class, weight, depth)
        if learnable.any():
            self.moved = step.movement
        unknown = self.judge(step) & points
        names = known.objects()
        if self.parameters["forget_classes"]:
            known.forget(np.flatnonzero(self.engine.active == 0).tolist())
        stats = self._stats(int(learnable.sum()), new_classes, before, step.movement)
        return _Taken(step, points, unknown, names, stats)

    def _ensure_memory(self, rows: CsrRows, depth: int, learned: int, new: int) -> None:
        """MemoryError, before anything is changed, when there may not be enough for so many rows."""
        if learned:
            self.engine.check_memory(rows)
            k_init, k_list = self.parameters["k_init"], self.parameters["k_list"]
            named = k_list.values() if isinstance(k_list, Mapping) else k_list or ()
            most, classes = max(k_init, *named, 1), len(self.labels) + new
            wide = rows.width * 8 if self.lift is not None and self.lift.standardises(rows.width) else 0
            features = 64 * max(0, rows.width - self.engine.n_features)
            needed = self.engine.bytes_to_learn(rows.count, rows.indices.size, classes, most)
            ranking = RANKED_BYTES * rows.count * depth
            memory.ensure(needed + rows.count * wide * 8 + features + ranking, lambda: self.engine.nbytes, rows.count)

    def judge(self, step: Step) -> NDArray[np.bool_]:
        """(n,) which rows of a step are unlike the rows of the class that won them; learns what is usual."""
        if self.novelty is None:
            return np.zeros(step.prototypes.size, np.bool_)
        ranking = step.ranking
        return self.novelty.learn(ranking.slots[:, 0], step.prototypes, ranking.scores[:, 0], step.own)

    def is_point(self, rows: CsrRows) -> NDArray[np.bool_]:
        """(n,) which rows can be predicted and learned: those with non-zeros; all, where zero is a point too."""
        everywhere = self.lift is not None and self.lift.standardises(rows.width)
        return np.ones(rows.count, np.bool_) if everywhere else ~rows.empty

    def prepare(self, rows: CsrRows, weight: NDArray[np.float64]) -> CsrRows:
        """The rows as the engine takes them; makes room for what the rows of positive weight bring.

        The lift's statistics are those before these rows, except for the very first.
        """
        if self.lift is None:
            prepared = scaled(rows)
        else:
            first = self.lift.rows == 0
            if first:
                self.lift.learn(rows, weight)
            prepared = self.lift.transform(rows)
            if not first:
                self.lift.learn(rows, weight)
        if weight.any():
            self.engine.make_room(self._prototype_limits(), prepared.width)
            self.width = max(self.width, rows.width)
        return prepared

    def _prototype_limits(self) -> NDArray[np.int64]:
        """(classes,) most prototypes; the same array as long as nothing changes."""
        k_init, k_list = self.parameters["k_init"], self.parameters["k_list"]
        made_of = self.labels.changes, k_init, copy.copy(k_list)
        if self._limits[0] != made_of:
            self._limits = made_of, np.array(prototype_limits(self.labels.names, k_init, k_list), np.int64)
        return self._limits[1]

    def _stats(self, rows: int, new_classes: int, before: Mapping[str, int], movement: Movement) -> LearnStats:
        after, mass = self.engine.counts, float(movement.masses.sum())
        return LearnStats(
            rows=rows,
            shift=float(movement.masses @ movement.shifts) / mass if mass > 0 else 0.0,
            shift_max=float(movement.shifts.max(initial=0.0)),
            active_centroids=after["born"] - after["pruned"] - after["merged"],
            classes=len(self.labels),
            new_classes=new_classes,
            born=after["born"] - before["born"],
            pruned=after["pruned"] - before["pruned"],
            num_merged=after["merged"] - before["merged"],
        )

    @property
    def frozen(self) -> bool:
        """Whether it learns no more."""
        return isinstance(self.engine, FrozenEngine)

    def freeze(self) -> None:
        """Keeps what scores, in the format that scores."""
        if not self.frozen:
            self.engine, self.moved, self.device = FrozenEngine.of(self.engine), None, "cpu"

    # --- predicting ---

    def _learned(self, taken: _Taken, top_k: int) -> Learned:
        step, points, unknown, names, stats = taken
        classes = np.where(points[:, None], step.ranking.classes, UNLABELLED)
        scores = np.where(classes >= 0, step.ranking.scores, -np.inf)
        known = classes[:, 0] >= 0
        labels = names[np.where(unknown, UNLABELLED, classes[:, 0])].tolist()
        winning = np.where(known, scores[:, 0], 0.0).astype(np.float32)
        ids = np.where(known, step.prototypes, -1)
        if not top_k:
            return Learned(labels, winning, ids, stats)
        depth = max(top_k, PROBABILITY_DEPTH)
        probs = self._probabilities(scores[:, :depth])[:, :top_k].astype(np.float32)
        return Learned(labels, winning, ids, stats, names[classes[:, :top_k]].tolist(), probs)

    def _probabilities(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.calibration.probabilities(scores, self.parameters["temperature"])

    def winners(self, rows: CsrRows) -> NDArray[np.int32]:
        """(n,) number of each row's best class; the heaviest prototype's for rows that are no points."""
        ranking, _ = self.engine.rank(self.as_known(rows), 1)
        numbers, points = ranking.classes[:, 0], self.is_point(rows)
        return numbers if points.all() else np.where(points, numbers, self.engine.heaviest_class())

    def novelty_scores(self, rows: CsrRows) -> NDArray[np.float64]:
        """(n,) how far each row's winning score is below the usual, in spreads; 0 for rows that are no points."""
        if self.novelty is None:
            raise ValueError("novelty=None keeps no record of usual scores: use novelty='auto', or a number, and learn")
        ranking, prototypes = self.engine.rank(self.as_known(rows), 1)
        ids = np.where(self.is_point(rows), prototypes, -1)
        return self.novelty.scores(ranking.slots[:, 0], ids, ranking.scores[:, 0])

    def unknown(self, rows: CsrRows) -> NDArray[np.bool_]:
        """(n,) which rows `learn` would answer unknown."""
        no_point = ~self.is_point(rows)
        return no_point if self.novelty is None else no_point | self.novelty.unknown(self.novelty_scores(rows))

    def class_scores(self, rows: CsrRows) -> NDArray[np.float64]:
        """(n, classes) scores in the order of ``classes_``."""
        return self.engine.class_scores(self.as_known(rows))[:, self.labels.sorted_numbers()]

    def probabilities(self, rows: CsrRows) -> NDArray[np.float64]:
        """(n, classes) in the order of ``classes_``; a last bit breaks ties, so that the largest is the winner."""
        p = self._probabilities(self.class_scores(rows))
        order = self.labels.sorted_numbers()
        column = np.empty(len(self.labels.names), np.int64)
        column[order] = np.arange(order.size)
        winner = column[self.winners(rows)]
        each = np.arange(rows.count)
        best = p.argmax(axis=1) if rows.count else winner
        tied = best != winner
        row, first, answered = each[tied], best[tied], winner[tied]
        p[row, first], p[row, answered] = p[row, answered], np.nextafter(p[row, first], 2.0)
        return p

    def as_known(self, rows: CsrRows) -> CsrRows:
        """The rows as the engine takes them; nothing is learned of them."""
        return scaled(rows) if self.lift is None else self.lift.transform(rows)

    def moved_classes(self, n: int) -> list[tuple[Label, float]]:
        """The n classes that moved most in the last step: (label, mass-weighted mean shift), largest first."""
        moved = self.moved  # another thread may learn meanwhile
        if moved is None or not moved.ids.size:
            return []
        classes, where = np.unique(moved.classes, return_inverse=True)
        mass = np.bincount(where, moved.masses)
        shift = np.bincount(where, moved.masses * moved.shifts) / np.where(mass > 0, mass, 1.0)
        order = np.argsort(-shift, kind="stable")[:n]
        named = [(self.labels.names[classes[at]], float(shift[at])) for at in order]
        return [(label, shift) for label, shift in named if label is not None]  # None: forgotten meanwhile

    # --- state ---

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All arrays, copies; names with dots."""
        arrays = {f"engine.{name}": array for name, array in self.engine.state().items()}
        arrays |= {f"calibration.{name}": array for name, array in self.calibration.state().items()}
        if self.lift is not None:
            arrays |= {f"lift.{name}": array for name, array in self.lift.state().items()}
        if self.novelty is not None:
            arrays |= {f"novelty.{name}": array for name, array in self.novelty.state().items()}
        return arrays | {"width": np.array([self.width])}

    @classmethod
    def restored(
        cls, parameters: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any],
        engine: str = "indexed",
    ) -> Self:  # fmt: skip
        """The model of `arrays` and the classifier's metadata."""

        def part(name: str) -> dict[str, NDArray[Any]]:
            return {key.removeprefix(f"{name}."): array for key, array in arrays.items() if key.startswith(f"{name}.")}

        model = cls(parameters, engine)
        model.labels = Labels(metadata["labels"])
        if metadata.get("frozen"):
            model.engine = FrozenEngine(model.engine.rule)
        model.engine.restore(part("engine"))
        model.calibration = Calibration.from_state(parameters["soft_type"], part("calibration"))
        if model.lift is not None:
            model.lift = EuclideanLift.from_state(part("lift"))
        if model.novelty is not None:
            model.novelty = Novelty.from_state(model.novelty.quantile, parameters["half_life"], part("novelty"))
        model.width = int(arrays["width"][0])
        return model
