"""Scores of rows against all prototypes by torch alone: the reference of the kernels, and what computes without them.

    s_p = tau * cos(x, M_p) + R_p . x / omega          s_c = max over the class's active prototypes

The features of a block of rows, n x U, times their part of the prototypes, U x K: dense products, deterministic.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from prototide.core.engines.gpu.entries import SLOT_MASK, Entries
from prototide.core.engines.gpu.rows import DeviceRows
from prototide.core.engines.gpu.sums import ranges, sums_by, wide_type
from prototide.core.engines.tables import Rule

STORED = {7: torch.bfloat16, 10: torch.float16, 23: torch.float32, 52: torch.float64}  # by bits of the mantissa


@dataclass(frozen=True)
class Roster:
    """Which slots play for which class, on the device."""

    kind: Tensor  # (used,)
    cls: Tensor  # (used,)
    members: Tensor  # (classes, most of one class) its active slots ascending; ``used`` fills up
    trials: Tensor  # (trials,) slots
    scale: Tensor  # (used,) 1 / |M_p|, 0 for none
    used: int


@dataclass(frozen=True)
class View:
    """A model as it scores now."""

    entries: Entries
    roster: Roster
    features: int
    omega: float
    rule: Rule


@dataclass(frozen=True)
class Frozen:
    """What learning needs of a group's scores before it learned. Tensors on the device."""

    top_class: Tensor  # (n, depth) int32, best first, -1 fills up
    top_slot: Tensor  # (n, depth) int32
    top_score: Tensor  # (n, depth), -inf fills up
    asked: Tensor  # (rows asked, classes) scores
    steal_row: Tensor  # rows, classes and scores of trials that are above the row's best wrong class
    steal_class: Tensor
    steal_score: Tensor


def inverse_frequencies(frequency: Tensor, rows: float, omega: float, width: int) -> Tensor:
    """(width,) log((1 + rows) / (1 + rows with the feature)) + 1."""
    if width > frequency.numel():  # columns never learned
        frequency = torch.cat([frequency, frequency.new_zeros(width - frequency.numel())])
    return torch.log((1 + rows / omega) / (1 + frequency / omega)) + 1


def unit_rows(rows: DeviceRows, idf: Tensor | None, real: torch.dtype) -> Tensor:
    """(non-zeros,) the values times the idf, each row at length 1; rows of zeros stay zeros."""
    x = rows.data.to(wide_type(rows.data.device))
    if idf is not None:
        x = x * idf[rows.indices]
    row = rows.row
    length = sums_by(x * x, row, rows.count).sqrt()
    return (x / torch.where(length > 0, length, 1.0)[row]).to(real)


def rounded(vector: Tensor, mantissa_bits: int) -> Tensor:
    """In the format that scores, ties to even; float16 clipped."""
    limit = 65504.0 if mantissa_bits == 10 else float("inf")
    return vector.clamp(-limit, limit).to(STORED[mantissa_bits]).to(vector.dtype)


def slot_scores(
    rows: DeviceRows, x: Tensor, entries: Entries, roster: Roster, omega: float, rule: Rule
) -> tuple[Tensor, Tensor, Tensor]:
    """Cosines, corrections and scores, each (n, used)."""
    feature, column = torch.unique(rows.indices.long(), return_inverse=True)
    X = x.new_zeros(rows.count, feature.numel())
    X[rows.row, column] = x
    which, at = ranges(*entries.lists(feature))
    slot = entries.key[at] & SLOT_MASK
    M, R = x.new_zeros(feature.numel(), roster.used), x.new_zeros(feature.numel(), roster.used)
    M[which, slot] = (entries.M[at] * roster.scale[slot]).to(x.dtype)
    R[which, slot] = entries.R[at] / omega
    cos, correction = X @ M, X @ R
    if rule.mantissa_bits > 10:
        return cos, correction, rule.tau * cos + correction
    return cos, correction, X @ rounded(rule.tau * M + R, rule.mantissa_bits)


def best_slots(score: Tensor, roster: Roster) -> tuple[Tensor, Tensor]:
    """Score and slot of each class's best active prototype, the lowest slot on a tie: (n, classes); -inf for none."""
    classes = roster.members.shape[0]
    if not roster.members.numel():
        return score.new_full((score.shape[0], classes), -torch.inf), roster.members.new_zeros(score.shape[0], classes)
    played = torch.cat([score, score.new_full((score.shape[0], 1), -torch.inf)], 1)[:, roster.members]
    best = played.amax(2)
    slot = torch.where(played == best[..., None], roster.members, roster.used).amin(2)
    return best, slot


def rank_classes(best: Tensor, slot: Tensor, depth: int) -> tuple[Tensor, Tensor, Tensor]:
    """Classes, slots and scores of the best classes, each (n, depth); equal scores: lowest slot first."""
    order = torch.argsort(slot, dim=1, stable=True)
    by_score = torch.argsort(best.gather(1, order), dim=1, descending=True, stable=True)
    order = order.gather(1, by_score)[:, :depth]
    score = best.gather(1, order)
    there = score > -torch.inf
    columns = torch.where(there, order, -1), torch.where(there, slot.gather(1, order), -1), score
    missing = depth - score.shape[1]
    fill = (-1, -1, -torch.inf)
    return tuple(  # type: ignore[return-value]
        torch.nn.functional.pad(column, (0, missing), value=value) for column, value in zip(columns, fill, strict=True)
    )


def best_wrong(top_class: Tensor, top_score: Tensor, own: Tensor) -> Tensor:
    """(n,) score of the best class that is not the row's own; -inf for none."""
    wrong = (top_class >= 0) & (top_class != own[:, None])
    return torch.where(wrong, top_score, -torch.inf).amax(1)


def freeze(
    rows: DeviceRows, x: Tensor, entries: Entries, roster: Roster, omega: float, rule: Rule, own: Tensor,
    asked: Tensor, depth: int,
) -> Frozen:  # fmt: skip
    """The frozen scores of a block of rows. ``own``: (n,) class, -1 for none; ``asked``: rows with all scores."""
    cos, correction, score = slot_scores(rows, x, entries, roster, omega, rule)
    best, slot = best_slots(score, roster)
    top_class, top_slot, top_score = rank_classes(best, slot, depth)
    wrong = best_wrong(top_class, top_score, own)
    trial_class = roster.cls[roster.trials]
    beside = slot[:, trial_class].clamp(max=max(0, roster.used - 1))
    value = rule.tau * cos[:, roster.trials] + correction.gather(1, beside)
    stolen = (value > wrong[:, None]) & (own[:, None] != trial_class) & (best[:, trial_class] > -torch.inf)
    steal_row, trial = torch.nonzero(stolen, as_tuple=True)
    return Frozen(
        top_class.int(), top_slot.int(), top_score, best[asked], steal_row, trial_class[trial], value[steal_row, trial]
    )  # fmt: skip
