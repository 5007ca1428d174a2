"""`FastKMeansClassifier`: several prototypes per class, learned from a stream, one row at a time or in batches."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Self

import numba
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from prototide.core import fitting, introspection
from prototide.core.devices import checked_device
from prototide.core.introspection import Explanation, Prototypes
from prototide.core.labels import Label, checked_labels, checked_weights
from prototide.core.model import Learned, LearnStats, Model, new_engine
from prototide.core.parameters import check_parameters
from prototide.core.rows import CsrRows, canonical_rows
from prototide.core.scikit import (
    BaseEstimator,
    ClassifierMixin,
    _check_feature_names,
    _get_feature_names,
    check_is_fitted,
)

STATE_FORMAT = 2
_BEGINNING = threading.Lock()


class FastKMeansClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Streaming multi-prototype classifier for sparse rows with many classes.

    A class is a set of prototypes; prototype p holds a centre M_p (the sum of the unit rows that it attracted) and a
    correction R_p (from margin violations, and the mutual information of prototype and feature).
    ``score_p(x) = tau cos(x, M_p) + R_p . x``; a class scores as its best prototype does; the best class is predicted.
    New classes and new features are taken in as they come.

    Parameters
    ----------
    k_init : int, default 3
        Most prototypes that a class may have. `fit` seeds that many; in a stream a class starts with one and gets
        another when its errors ask for it.
    k_list : dict or list, optional
        The same for single classes: label -> k (also of classes not yet seen), or by position in ``classes_`` at `fit`
        (in a stream: in the order in which classes appear).
    init_method : {"kmeans++", "random"}
        How `fit` draws its seeds.
    distance : {"cosine", "euclidean"}
        Euclidean rows are mapped so that cosine orders them as distance does (`prototide.core.lift`).
    dtype : {"float32", "float16", "bfloat16", "float64"}
        Format of the vectors that score; sums, masses and norms are float32 at least.
    soft, soft_type, temperature : bool, {"linear", "softmax"}, float
        How a row is shared among the prototypes of its class, and the form of `predict_proba`; ``soft=False``: the
        nearest prototype takes all.
    lambda_penalty : float, default 0.1
        Strength of the corrections against wrong classes; 0: pure soft K-means, without mutual information too.
    merge_threshold, relative_merge, percentile_threshold : float or None, bool, float or None
        Prototypes of one class nearer than this (1 - cosine) are merged; relative: as a fraction of the mean distance
        of same-class prototypes; percentile: and also below that quantile of these distances. None: 0.02; 0: never.
    truncation_threshold : float, default 1e-3
        Entries below this fraction of a prototype's largest are dropped now and then (not while its mass is < 100).
    min_weight : float, default 1e-3
        Prototypes whose mass has decayed below are dropped, never the last of a class (but see ``forget_classes``).
    batch_size : int, default 10240
        Rows scored at once by the predict methods.
    n_threads : int, default -1
        Threads of the scoring; -1: all cores. Results do not depend on it.
    random_state : int, RandomState or None, default 42
        Seed of `fit`. Nothing else is random.
    max_iters, tol : int, float
        `fit` stops after so many passes, or when no prototype moved further than ``tol`` in one.
    half_life : float, optional
        Rows after which a row's influence has halved; None: nothing is forgotten.
    idf : bool, default True
        Inverse document frequencies learned from the stream (cosine only).
    update_rows : int or "auto"
        Rows that are scored together before they are learned; "auto" grows with the model.
    novelty : float or "auto", optional
        Rows whose score is unusually low for the prototype that wins them are answered unknown by `learn` and flagged
        by ``predict(X, return_unknown=True)``: so low as this share of the rows of known classes ("auto": 0.01).
    forget_classes : bool, default False
        Whether a class is forgotten when its last prototype's mass has decayed below ``min_weight``; seen again, it is
        a new class.
    memory_budget_bytes : int, optional
        What `nbytes` should not exceed; watched every 1,024 rows. Above it, near prototypes of one class merge (never
        to less than one) and the entries that matter least for the scores go. One warning when that is not enough.

    Attributes
    ----------
    classes_ : array of int64, str or (mixed) object
        Known labels, ints ascending, then strings.
    n_features_in_ : int
        Columns seen so far.
    feature_names_in_ : array of str
        Column names, when `fit` or the first `partial_fit` was given a table that has them.

    """

    _engine: ClassVar[str] = "indexed"  # tests name one
    _device = "cpu"  # see `to`

    def __init__(
        self,
        k_init: int = 3,
        k_list: Mapping[Label, int] | list[int] | None = None,
        init_method: str = "kmeans++",
        distance: str = "cosine",
        dtype: str = "float32",
        soft: bool = True,
        soft_type: str = "linear",
        temperature: float = 1.0,
        lambda_penalty: float = 0.1,
        merge_threshold: float | None = None,
        relative_merge: bool = False,
        percentile_threshold: float | None = None,
        truncation_threshold: float = 1e-3,
        min_weight: float = 1e-3,
        batch_size: int = 10240,
        n_threads: int = -1,
        random_state: int | np.random.RandomState | None = 42,
        max_iters: int = 50,
        tol: float = 1e-4,
        half_life: float | None = None,
        idf: bool = True,
        update_rows: int | str = "auto",
        novelty: float | str | None = None,
        forget_classes: bool = False,
        memory_budget_bytes: int | None = None,
    ) -> None:
        self.k_init = k_init
        self.k_list = k_list
        self.init_method = init_method
        self.distance = distance
        self.dtype = dtype
        self.soft = soft
        self.soft_type = soft_type
        self.temperature = temperature
        self.lambda_penalty = lambda_penalty
        self.merge_threshold = merge_threshold
        self.relative_merge = relative_merge
        self.percentile_threshold = percentile_threshold
        self.truncation_threshold = truncation_threshold
        self.min_weight = min_weight
        self.batch_size = batch_size
        self.n_threads = n_threads
        self.random_state = random_state
        self.max_iters = max_iters
        self.tol = tol
        self.half_life = half_life
        self.idf = idf
        self.update_rows = update_rows
        self.novelty = novelty
        self.forget_classes = forget_classes
        self.memory_budget_bytes = memory_budget_bytes

    # --- learning ---

    def learn(self, X: Any, y: Any, sample_weight: Any = None, top_k: int = 0) -> Learned:
        """Predicts each row just before it learns it.

        X: (n, any width) rows, sparse or dense. y: n labels (int, str; None: predict only), or None for no labels.
        sample_weight: (n,) finite, >= 0; 0: predict only. top_k: how many best classes to return with probabilities.
        A batch that is rejected (ValueError, TypeError) leaves the model as it was.
        """
        if not isinstance(top_k, int | np.integer) or isinstance(top_k, bool) or top_k < 0:
            raise ValueError(f"top_k={top_k} is not allowed: it must be an int >= 0")
        given = _checked(X, y, sample_weight)
        with self._model() as model:
            return model.learn(*given, top_k)

    def fit_batch(self, X: Any, y: Any, sample_weight: Any = None, verbose: bool = False) -> LearnStats:
        """`learn` without the predictions: the statistics of the call; ``verbose`` prints them."""
        given = _checked(X, y, sample_weight)
        with self._model() as model:
            stats = model.fit_batch(*given)
        if verbose:
            print(", ".join(f"{name} {value:.4g}" for name, value in stats.items()))  # noqa: T201
        return stats

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """scikit-learn's name for `fit_batch`; ``classes`` may announce labels (not needed), the width is fixed."""
        begun = self.__sklearn_is_fitted__()
        _get_feature_names(X)  # refuses names of several types before anything is learned
        rows = self._known_rows(X) if begun else canonical_rows(X)
        labels, weight = checked_labels(y, rows.count), checked_weights(sample_weight, rows.count)
        if classes is not None:
            announced = set(checked_labels(classes, np.size(classes)))
            unknown = [label for label in labels if label is not None and label not in announced]
            if unknown:
                raise ValueError(f"y contains the label {unknown[0]!r}, which is not in classes={list(classes)!r}")
        with self._model() as model:
            model.fit_batch(rows, labels, weight)
        if not begun:
            _check_feature_names(self, X, reset=True)
        return self

    def fit(self, X: Any, y: Any, sample_weight: Any = None, verbose: bool | None = None) -> Self:
        """Starts anew: seeds ``k_init`` prototypes per class, then passes over the shuffled rows until they settle.

        ``verbose``: a progress bar; None: when the terminal is one.
        """
        check_parameters(self._parameters())
        _get_feature_names(X)  # refuses names of several types before anything is learned
        rows = canonical_rows(X)
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        if rows.width == 0:
            raise ValueError(f"X has 0 feature(s) (shape=({rows.count}, 0)) while a minimum of 1 is required.")
        labels, weight = checked_labels(y, rows.count), checked_weights(sample_weight, rows.count)
        if not any(label is not None for label in labels):
            raise ValueError(f"fit needs at least one labelled row, got X of shape ({rows.count}, {rows.width})")
        fresh = Model(self._parameters(), self._engine, self._device)
        with fresh.lock, self._threads():
            fitting.fit(fresh, rows, labels, weight, verbose)
        self._fitted = fresh
        _check_feature_names(self, X, reset=True)
        return self

    # --- predicting ---

    def predict(self, X: Any, return_unknown: bool = False) -> NDArray[Any] | tuple[NDArray[Any], NDArray[np.bool_]]:
        """(n,) the best class of each row; a row without non-zeros gets that of the heaviest prototype.

        ``return_unknown``: also (n,) which rows `learn` would answer unknown: those without non-zeros and, with
        ``novelty``, those that are unlike the rows of their class.
        """
        with self._known() as model:
            rows, names = self._known_rows(X), model.labels
            numbers = np.concatenate([model.winners(part) for part in self._parts(rows)])
            labels = names.objects()[numbers].astype(names.sorted_array().dtype)
            unknown = [model.unknown(part) for part in self._parts(rows)] if return_unknown else []
        return (labels, np.concatenate(unknown)) if return_unknown else labels

    def novelty_scores(self, X: Any) -> NDArray[np.float64]:
        """(n,) how far the winning score of each row lies below what is usual for its prototype, in spreads.

        The higher, the likelier the row belongs to no known class. Rows of any width; 0 for rows without non-zeros.
        """
        rows = canonical_rows(X)
        with self._known() as model:
            return np.concatenate([model.novelty_scores(part) for part in self._parts(rows)])

    def predict_top(self, X: Any, k: int) -> tuple[list[list[Label | None]], NDArray[np.float32]]:
        """The k best classes of each row of any width, best first: n lists of k labels, and (n, k) probabilities."""
        _check_count("k", k)
        predicted = self.learn(X, None, top_k=k)
        assert predicted.top_labels is not None
        assert predicted.top_probs is not None
        return predicted.top_labels, predicted.top_probs

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """(n, classes) calibrated probabilities in the order of ``classes_``; the largest is what `predict` answers."""
        with self._known() as model:
            rows = self._known_rows(X)
            return np.concatenate([model.probabilities(part) for part in self._parts(rows)])

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """(n, classes) scores in the order of ``classes_``; of two classes: (n,) the second's lead over the first."""
        with self._known() as model:
            rows = self._known_rows(X)
            scores = np.concatenate([model.class_scores(part) for part in self._parts(rows)])
        return np.asarray(scores[:, 1] - scores[:, 0]) if scores.shape[1] == 2 else scores

    def freeze(self) -> Self:
        """Keeps only the vectors that score, in ``dtype``: less memory, the same answers; for good.

        `learn` then takes rows without labels only (ValueError); `fit` begins anew. Parameters that concern scoring
        (``dtype``, ``idf``) have no effect any more.
        """
        with self._known() as model:
            model.freeze()
        return self

    def to(self, device: Any) -> Self:
        """Goes on on a device: "cpu", "cuda", "cuda:1", "mps" or "xpu"; what was learned goes along.

        ValueError when the device is not there, MemoryError when the model does not fit: it stays where it was.
        """
        name = checked_device(device, self.dtype)
        if hasattr(self, "_fitted"):
            with self._fitted.lock:
                self._fitted.to(name)
        self._device = name
        return self

    # --- what there is ---

    @property
    def classes_(self) -> NDArray[Any]:
        """Known labels, ints ascending, then strings."""
        model = self._need()
        return model.labels.sorted_array().copy()

    @property
    def n_features_in_(self) -> int:
        """Columns seen so far."""
        return self._need().width

    @property
    def engine(self) -> str:
        """What computes: "indexed", "gpu" (on a device) or "frozen"."""
        return (
            self._fitted.engine.name
            if hasattr(self, "_fitted")
            else new_engine(self._parameters(), self._engine, self._device).name
        )

    @property
    def nbytes(self) -> int:
        """Bytes held by the model's arrays."""
        return self._fitted.engine.nbytes if hasattr(self, "_fitted") else 0

    def explain(self, X: Any, n: int = 10) -> list[Explanation]:
        """Why each row is answered as it is: winner, the n largest contributions, runner-up, what would have to change.

        X: rows of any width. See `prototide.core.introspection.Explanation`.
        """
        _check_count("n", n)
        rows = canonical_rows(X)
        with self._known() as model:
            return introspection.explain(model, rows, n)

    @property
    def prototypes_(self) -> Prototypes:
        """The active prototypes: a sequence of `prototide.core.introspection.Prototype`, made when asked for."""
        model = self._need()
        with model.lock:
            return Prototypes(model)

    def similar_classes(self, n: int = 10) -> list[tuple[Label, Label, float]]:
        """The n pairs of classes that are most alike: (label, label, cosine of their nearest centres), nearest first.

        See `prototide.core.introspection.similar_classes` for what it costs.
        """
        _check_count("n", n)
        with self._known() as model:
            return introspection.similar_classes(model, n)

    def moved_classes(self, n: int) -> list[tuple[Label, float]]:
        """The n classes that moved most in the last call that learned: (label, mass-weighted shift), largest first."""
        return self._fitted.moved_classes(n) if hasattr(self, "_fitted") else []

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """The whole model as named arrays and JSON-able metadata: copies, and all that `from_state` needs."""
        check_parameters(self._parameters())
        with self._model() as model:
            parameters = {
                name: value.item() if isinstance(value, np.generic) else value
                for name, value in self._parameters().items()
            }
            if isinstance(self.random_state, np.random.RandomState):
                parameters["random_state"] = None  # a generator has no name; only `fit` draws from it
            if isinstance(self.k_list, Mapping):
                parameters["k_list"] = {
                    "labels": [
                        [label if isinstance(label, str) else int(label), int(k)] for label, k in self.k_list.items()
                    ]
                }
            elif self.k_list is not None:
                parameters["k_list"] = [int(k) for k in self.k_list]
            return model.arrays(), {
                "format": STATE_FORMAT,
                "parameters": parameters,
                "labels": list(model.labels.names),
                "frozen": model.frozen,
            }

    def snapshot(self, room: Iterable[NDArray[Any]] = ()) -> Self:
        """A copy of the model as it is now, in less than half the time of `state`, which may be asked of it later.

        room: of `snapshot_room`, used up: shorter still.
        """
        twin = type(self)(**self._parameters())
        with self._model() as model:
            twin._device, twin._fitted = self._device, model.copied(room)
        return twin

    def snapshot_room(self) -> list[NDArray[Any]]:
        """Memory for one `snapshot`; another thread may get it while this one learns."""
        return self._fitted.copy_room() if hasattr(self, "_fitted") else []

    @classmethod
    def from_state(cls, arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any]) -> Self:
        """The classifier whose `state` this is. ValueError when the format is another."""
        if metadata.get("format") != STATE_FORMAT:
            raise ValueError(
                f"state format {metadata.get('format')!r} is not {STATE_FORMAT}: made by another version of prototide"
            )
        missing = {"parameters", "labels", "frozen"} - metadata.keys()
        if missing:
            raise ValueError(f"the state's metadata lacks {', '.join(sorted(missing))}: pass what `state` returned")
        parameters = dict(metadata["parameters"])
        if isinstance(parameters["k_list"], Mapping):
            parameters["k_list"] = dict(parameters["k_list"]["labels"])
        classifier = cls(**parameters)
        try:
            classifier._fitted = Model.restored(classifier._parameters(), arrays, metadata, cls._engine)
        except KeyError as missing:
            raise ValueError(f"the state lacks {missing}: pass what `state` returned") from None
        return classifier

    # --- inside ---

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_fitted") and len(self._fitted.labels) > 0

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def __getstate__(self) -> dict[str, Any]:
        """Parameters and `state`; scikit-learn adds its version. The copy is on the CPU, as one of `from_state` is."""
        kept = {name: value for name, value in super().__getstate__().items() if name not in ("_fitted", "_device")}
        return kept | ({"_state": self.state()} if hasattr(self, "_fitted") else {})

    def __setstate__(self, kept: dict[str, Any]) -> None:
        state = kept.pop("_state", None)
        super().__setstate__(kept)
        if state is not None:
            arrays, metadata = state
            self._fitted = Model.restored(self._parameters(), arrays, metadata, self._engine)

    def _parameters(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _parameter_names(type(self))}  # type: ignore[arg-type]

    def _need(self) -> Model:
        check_is_fitted(self)
        return self._fitted

    @contextmanager
    def _model(self) -> Iterator[Model]:
        """The model, begun if need be, to one caller at a time; the engine follows the parameters as they are now."""
        parameters = self._parameters()
        if not hasattr(self, "_fitted") or not self._fitted.follows(parameters):
            check_parameters(parameters)
        if not hasattr(self, "_fitted"):
            with _BEGINNING:  # two threads may come first
                if not hasattr(self, "_fitted"):
                    self._fitted = Model(parameters, self._engine, self._device)
        model = self._fitted
        with model.lock, self._threads():
            model.follow(parameters)
            yield model

    @contextmanager
    def _known(self) -> Iterator[Model]:
        if not self.__sklearn_is_fitted__():
            check_is_fitted(self)  # raises
        with self._model() as model:
            yield model

    @contextmanager
    def _threads(self) -> Iterator[None]:
        before, most = numba.get_num_threads(), numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
        wanted = most if self.n_threads == -1 else min(self.n_threads, most)
        if wanted != before:
            numba.set_num_threads(wanted)
        try:
            yield
        finally:
            if wanted != before:
                numba.set_num_threads(before)

    def _known_rows(self, X: Any) -> CsrRows:
        """Rows of the width, and with the column names, that scikit-learn's methods ask for."""
        if hasattr(self, "feature_names_in_") or not isinstance(X, np.ndarray | sp.csr_matrix | sp.csr_array):
            _check_feature_names(self, X, reset=False)
        rows, expected = canonical_rows(X), self._fitted.width
        if rows.width != expected:
            raise ValueError(
                f"X has {rows.width} features, but {type(self).__name__} is expecting {expected} features as input"
            )
        return rows

    def _parts(self, rows: CsrRows) -> Iterator[CsrRows]:
        for first in range(0, max(1, rows.count), self.batch_size):
            yield rows.part(first, min(first + self.batch_size, rows.count))


def _checked(X: Any, y: Any, sample_weight: Any) -> tuple[CsrRows, list[Label | None], NDArray[np.float64]]:
    rows = canonical_rows(X)
    return rows, checked_labels(y, rows.count), checked_weights(sample_weight, rows.count)


@functools.cache
def _parameter_names(kind: Any) -> tuple[str, ...]:
    """What `get_params` looks up in the constructor's signature at every call."""
    return tuple(kind._get_param_names())


def _check_count(name: str, value: int) -> None:
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name}={value!r} is not allowed: it must be an int >= 1")
