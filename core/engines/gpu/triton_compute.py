"""The kernels as a `compute.Compute`."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor

from prototide.core.engines.gpu import fast_learning, fast_scoring, kernels, scoring
from prototide.core.engines.gpu.entries import Entries
from prototide.core.engines.gpu.group import Changes, Group, Outcome, lay_out
from prototide.core.engines.gpu.plan import Plan
from prototide.core.engines.gpu.rows import DeviceRows
from prototide.core.engines.gpu.scoring import Frozen, View
from prototide.core.engines.gpu.vectors import Vectors, vectors_of
from prototide.core.engines.tables import Reals, Rule

Args = ParamSpec("Args")
Result = TypeVar("Result")


def _there(
    method: Callable[Concatenate[TritonCompute, Args], Result],
) -> Callable[Concatenate[TritonCompute, Args], Result]:
    """Triton launches on the current device: makes it the model's."""

    @functools.wraps(method)
    def there(self: TritonCompute, /, *args: Args.args, **more: Args.kwargs) -> Result:
        with torch.cuda.device(self.device) if self.device.type == "cuda" else contextlib.nullcontext():
            return method(self, *args, **more)

    return there


class TritonCompute:
    """Keeps the vectors that score until the model changes, and which features are hot a little longer."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._vectors: Vectors | None = None
        self._hot: Tensor | None = None

    def __deepcopy__(self, memo: object) -> TritonCompute:
        """Of a snapshot: what scores is made again when it is asked for."""
        twin = TritonCompute(self.device)
        twin._hot = None if self._hot is None else self._hot.clone()
        return twin

    @property
    def nbytes(self) -> int:
        """Bytes of the vectors."""
        return self._vectors.nbytes if self._vectors is not None else 0

    def forget(self, *, structure: bool) -> None:
        """The model has changed."""
        self._vectors = None
        if structure:
            self._hot = None

    def vectors(self, view: View) -> Vectors:
        """The model's vectors as they are now."""
        if self._vectors is None:
            self._vectors = vectors_of(view.entries, view.roster, view.features, view.omega, view.rule, self._hot)
            self._hot = self._vectors.hot
        return self._vectors

    @_there
    def rows_at_once(self, view: View, rows: int, *, all_scores: bool) -> int:
        """Bounded by the scores, if they are kept."""
        return fast_scoring.rows_at_once(self.vectors(view), rows, all_scores)

    @_there
    def unit_rows(self, rows: DeviceRows, idf: Tensor | None, real: torch.dtype) -> Tensor:
        """(non-zeros,) see `scoring.unit_rows`."""
        x = torch.empty(rows.indices.numel(), dtype=real, device=rows.indices.device)
        if idf is None:
            idf = torch.ones(rows.width, dtype=real, device=x.device)
        if rows.count:
            kernels.unit_rows[(rows.count,)](
                rows.indptr, rows.indices, rows.data, idf.to(real), x, BLOCK=128, num_warps=1
            )
        return x

    @_there
    def rank(self, rows: DeviceRows, x: Tensor, view: View, depth: int) -> tuple[Tensor, Tensor, Tensor]:
        """Classes, slots and scores of the best classes, each (n, depth)."""
        return fast_scoring.rank(rows, x, self.vectors(view), depth)

    @_there
    def class_scores(self, rows: DeviceRows, x: Tensor, view: View) -> Tensor:
        """(n, classes)"""
        score = fast_scoring.scores(rows, x, self.vectors(view))[:, : view.roster.used]
        return scoring.best_slots(score, view.roster)[0]

    @_there
    def freeze(self, rows: DeviceRows, x: Tensor, view: View, own: Tensor, asked: Tensor, depth: int) -> Frozen:
        """See `scoring.freeze`."""
        return fast_scoring.freeze(
            rows, x, self.vectors(view), view.entries, view.roster, view.omega, view.rule, own, asked, depth
        )

    @_there
    def lay_out(
        self, plan: Plan, rows: DeviceRows, x: Tensor, weight: Reals, numbers: Reals, entries: Entries, rates: Tensor
    ) -> Group:
        """See `group.lay_out`."""
        return lay_out(plan, rows, x, weight, numbers, entries, rates, fast_learning.spread_rows)

    @_there
    def learn(self, group: Group, rule: Rule, omega: float, mean_loss: float) -> Outcome:
        """See `learning.learn`."""
        return fast_learning.learn(group, rule, omega, mean_loss)

    @_there
    def put_back(self, group: Group, outcome: Outcome, entries: Entries) -> Changes:
        """See `learning.put_back`."""
        return fast_learning.put_back(group, outcome, entries)

    @_there
    def moved(self, key: Tensor, values: list[Tensor], added: Tensor) -> tuple[Tensor, list[Tensor]]:
        """See `entries.moved`."""
        return fast_learning.moved(key, values, added)

    @_there
    def count(self, group: Group, outcome: Outcome, rule: Rule, omega: float, features: int) -> Tensor:
        """See `learning.count`."""
        return fast_learning.count(group, outcome, rule, omega, features)

    @_there
    def squares(self, values: Tensor, keys: Tensor, most: Tensor) -> Tensor:
        """(slots,) see `sums.squares_by`."""
        return fast_learning.squares(values, keys, most)
