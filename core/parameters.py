"""The classifier's parameters: checked once, turned into the numbers of the rule."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from prototide.core.engines.tables import HARD, LINEAR, SOFTMAX, Rule
from prototide.core.labels import Label
from prototide.core.novelty import DEFAULT_QUANTILE

MERGE_DISTANCE = 0.02  # of maintenance, when merge_threshold is None
TAU = 2.0  # weight of the cosine in the score,
TAU_BESIDE_PMI, PMI = 1.1, 0.25  # and where mutual information takes part; its weight
NOISE_ADAPT, NOISE_ADAPT_FORGETTING = 2.0, 0.5  # after a drift large losses are no noise
LINEAR_WIDTH = SOFTMAX_WIDTH = 0.1  # of the responsibilities, in cosine
LEAST_NOVELTY, MOST_NOVELTY = 1e-6, 0.5  # share of the rows of known classes that are called unknown
MANTISSA_BITS = {"float16": 10, "bfloat16": 7, "float32": 23, "float64": 52}


def _whole(low: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int | np.integer) and not isinstance(value, bool) and int(value) >= low


def _real(low: float, high: float = math.inf, *, above: bool = False) -> Callable[[Any], bool]:
    def allowed(value: Any) -> bool:
        if not isinstance(value, int | float | np.integer | np.floating) or isinstance(value, bool):
            return False
        number = float(value)
        return (low < number if above else low <= number) and (number < high if math.isinf(high) else number <= high)

    return allowed


def _one_of(*choices: Any) -> Callable[[Any], bool]:
    def allowed(value: Any) -> bool:
        plain = value.item() if isinstance(value, np.generic) else value
        return any(type(plain) is type(choice) and plain == choice for choice in choices)

    return allowed


def _or_none(allowed: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or allowed(value)


def _quantile(value: Any) -> bool:
    return _real(LEAST_NOVELTY)(value) and value <= MOST_NOVELTY


def _seed(value: Any) -> bool:
    return value is None or isinstance(value, np.random.RandomState) or (_whole(0)(value) and value < 2**32)


def _k_list(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(
            isinstance(label, int | np.integer | str) and not isinstance(label, bool) for label in value
        ) and all(map(_whole(1), value.values()))
    return isinstance(value, Sequence) and not isinstance(value, str) and all(map(_whole(1), value))


_ALLOWED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "k_init": (_whole(1), "an int >= 1"),
    "k_list": (_or_none(_k_list), "None, a dict label -> int >= 1, or a list of ints >= 1"),
    "init_method": (_one_of("kmeans++", "random"), "'kmeans++' or 'random'"),
    "distance": (_one_of("cosine", "euclidean"), "'cosine' or 'euclidean'"),
    "dtype": (_one_of(*MANTISSA_BITS), "'float16', 'bfloat16', 'float32' or 'float64'"),
    "soft": (_one_of(True, False), "True or False"),
    "soft_type": (_one_of("linear", "softmax"), "'linear' or 'softmax'"),
    "temperature": (_real(1e-6), "a number >= 1e-6"),
    "lambda_penalty": (_real(0, 1000), "a number from 0 to 1000"),
    "merge_threshold": (_or_none(_real(0)), "None or a number >= 0"),
    "relative_merge": (_one_of(True, False), "True or False"),
    "percentile_threshold": (_or_none(_real(0, 1)), "None or a number from 0 to 1"),
    "truncation_threshold": (lambda value: _real(0, 1)(value) and value < 1, "a number >= 0 and < 1"),
    "min_weight": (_real(0), "a number >= 0"),
    "batch_size": (_whole(1), "an int >= 1"),
    "n_threads": (lambda value: _one_of(-1)(value) or _whole(1)(value), "-1 (all cores) or an int >= 1"),
    "random_state": (_seed, "None, an int from 0 to 4294967295, or a numpy.random.RandomState"),
    "max_iters": (_whole(1), "an int >= 1"),
    "tol": (_real(0), "a number >= 0"),
    "half_life": (_or_none(_real(1)), "None or a number of rows >= 1"),
    "idf": (_one_of(True, False), "True or False"),
    "novelty": (
        lambda value: _one_of("auto")(value) or _or_none(_quantile)(value),
        "None, 'auto' or a number from 1e-6 to 0.5",
    ),
    "forget_classes": (_one_of(True, False), "True or False"),
    "memory_budget_bytes": (_or_none(_whole(1)), "None or an int >= 1, in bytes"),
    "update_rows": (lambda value: _one_of("auto")(value) or _whole(1)(value), "'auto' or an int >= 1"),
}


def check_parameters(parameters: Mapping[str, Any]) -> None:
    """Raises ValueError naming the parameter, its value and what is allowed."""
    for name, (allowed, what) in _ALLOWED.items():
        if not allowed(parameters[name]):
            raise ValueError(f"{name}={parameters[name]!r} is not allowed: it must be {what}")


def same_parameters(parameters: Mapping[str, Any], before: Mapping[str, Any] | None) -> bool:
    """Whether nothing can have changed: the same objects, none of which may be changed in place."""
    if before is None or parameters["k_list"] is not None:
        return False
    return all(value is before[name] for name, value in parameters.items())


def rule_of(parameters: Mapping[str, Any]) -> Rule:
    """The numbers that the engine works with."""
    p = parameters
    kernel = HARD if not p["soft"] else LINEAR if p["soft_type"] == "linear" else SOFTMAX
    merge = p["merge_threshold"]
    informed = p["distance"] == "cosine" and p["lambda_penalty"] > 0
    return Rule(
        idf=bool(p["idf"]) and p["distance"] == "cosine",
        correction=10.0 * p["lambda_penalty"],
        kernel=kernel,
        width=LINEAR_WIDTH if kernel != SOFTMAX else SOFTMAX_WIDTH * p["temperature"],
        decay=1.0 if p["half_life"] is None else 2.0 ** (1.0 / p["half_life"]),
        mantissa_bits=MANTISSA_BITS[p["dtype"]],
        min_weight=float(p["min_weight"]),
        merge_distance=MERGE_DISTANCE if merge is None else float(merge),
        relative_merge=bool(p["relative_merge"]) and merge is not None,
        merge_percentile=-1.0 if p["percentile_threshold"] is None else float(p["percentile_threshold"]),
        truncation=float(p["truncation_threshold"]),
        update_rows=0 if p["update_rows"] == "auto" else int(p["update_rows"]),
        forget_classes=bool(p["forget_classes"]),
        memory_budget=int(p["memory_budget_bytes"] or 0),
        tau=TAU_BESIDE_PMI if informed else TAU,
        pmi=PMI if informed else 0.0,
        noise_adapt=NOISE_ADAPT if p["half_life"] is None else NOISE_ADAPT_FORGETTING,
    )


def novelty_quantile(parameters: Mapping[str, Any]) -> float | None:
    """Share of the rows of known classes that may be called unknown; None: no row is."""
    novelty = parameters["novelty"]
    return DEFAULT_QUANTILE if novelty == "auto" else None if novelty is None else float(novelty)


def prototype_limits(labels: Sequence[Label | None], k_init: int, k_list: Any) -> list[int]:
    """Most prototypes of each class (None: a number without one); a list speaks of the classes in the order given."""
    if k_list is None:
        return [int(k_init)] * len(labels)
    if isinstance(k_list, Mapping):
        return [int(k_list.get(label, k_init)) for label in labels]
    return [int(k_list[number]) if number < len(k_list) else int(k_init) for number in range(len(labels))]
