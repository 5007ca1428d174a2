"""What happens every 1,024 learned rows, on the device: `prototide.core.engines.maintenance` says what and why."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prototide.core.engines.gpu.births import vacate
from prototide.core.engines.gpu.entries import Entries, columns, keys_of
from prototide.core.engines.gpu.plan import by_class, lists
from prototide.core.engines.gpu.rows import to_device
from prototide.core.engines.gpu.sums import alike_sums, wide_type
from prototide.core.engines.tables import ACTIVE, MERGED, PRUNED, Classes, Flags, Longs, Reals, Rule, Slots

BUCKETS, BUCKET_ROOM = 1024, 1 << 25  # of features, in the bound on cosines


def light(slots: Slots, classes: Classes, omega: float, rule: Rule) -> list[int]:
    """Active prototypes below ``min_weight``, the last of a class only to forget it; trials of forgotten classes."""
    weak = np.flatnonzero((slots.kind == ACTIVE) & (slots.mass / omega < rule.min_weight))
    weak = weak[np.argsort(slots.mass[weak], kind="stable")]
    gone, left = [], classes.active.copy()
    for p in weak.tolist():
        if left[slots.cls[p]] > (0 if rule.forget_classes else 1):
            left[slots.cls[p]] -= 1
            gone.append(p)
    forgotten = np.flatnonzero((left == 0) & (classes.trial >= 0))
    return gone + classes.trial[forgotten].tolist()


def prune(gone: list[int], slots: Slots, classes: Classes, counters: Longs) -> None:
    """Takes the prototypes out of the tables."""
    for p in gone:
        c = slots.cls[p]
        if slots.kind[p] == ACTIVE:
            classes.active[c] -= 1
            counters[PRUNED] += 1
        else:
            classes.trial[c] = -1
        vacate(slots, p)


def drop_slots(entries: Entries, gone: list[int], slots: int) -> None:
    """Drops all entries of the slots."""
    if gone:
        kept = torch.ones(slots, dtype=torch.bool, device=entries.key.device)
        kept[gone] = False
        entries.keep(entries.of_slots(kept))


def members(slots: Slots, chosen: Flags) -> Longs:
    """(classes, most of one) active slots of the chosen classes that have several, ascending; -1 fills up."""
    held, begin = by_class(np.where((slots.kind == ACTIVE) & chosen[slots.cls], slots.cls, np.int32(-1)), chosen.size)
    count = np.diff(begin)
    return lists(held, begin, np.flatnonzero(count > 1), int(count.max(initial=0)), -1)


def perhaps_near(entries: Entries, slots: Slots, team: Longs, cosine: float) -> NDArray[np.bool_]:
    """(teams,) whether two of a team may have this cosine or more.

    Cauchy-Schwarz on buckets of features: M_a . M_b <= sum over buckets of |M_a| |M_b|, each taken inside the bucket.
    """
    device, size = entries.key.device, slots.kind.size
    number = np.full(size, -1)
    used = team[team >= 0]
    number[used] = np.arange(used.size)
    buckets = max(1, min(BUCKETS, BUCKET_ROOM // max(1, used.size)))
    where = to_device(number, device)[entries.slot]
    inside = where >= 0
    scale = 1 / np.sqrt(np.where(slots.square > 0, slots.square, np.inf))
    unit = entries.M[inside] * to_device(scale, device)[entries.slot[inside]].to(wide_type(device))
    bucket = where[inside] * buckets + entries.feature[inside] % buckets
    norm = alike_sums(unit * unit, bucket, used.size * buckets).view(used.size, buckets).sqrt().float()
    norm = torch.nn.functional.normalize(norm, dim=1)
    norm = torch.cat([norm, norm.new_zeros(1, buckets)])  # the team's missing ones
    at = to_device(np.where(team >= 0, number[np.maximum(team, 0)], used.size), device)
    near = torch.zeros(team.shape[0], dtype=torch.bool, device=device)
    for a in range(team.shape[1]):
        for b in range(a + 1, team.shape[1]):
            near |= (norm[at[:, a]] * norm[at[:, b]]).sum(1) >= cosine - 1e-5
    return near.cpu().numpy()


class Vectors:
    """The vectors of some slots, on the host, in float64: {slot: (features ascending, M, R, pmi)}."""

    def __init__(self, entries: Entries, chosen: Longs, slots: int) -> None:
        flags = np.zeros(slots, np.bool_)
        flags[chosen] = True
        inside = entries.of_slots(to_device(flags, entries.key.device))
        slot, feature = (part[inside].cpu().numpy() for part in (entries.slot, entries.feature))
        values = [part[inside].cpu().numpy().astype(np.float64) for part in entries.values]
        values += [np.zeros(slot.size)] * (3 - len(values))
        order = np.argsort(slot, kind="stable")
        begins, ends = (np.searchsorted(slot[order], chosen, side) for side in ("left", "right"))
        self.of: dict[int, tuple[NDArray[Any], ...]] = {
            int(p): (feature[order[a:b]], *(value[order[a:b]] for value in values))
            for p, a, b in zip(chosen, begins, ends, strict=True)
        }

    def distance(self, slots: Slots, a: int, b: int) -> float:
        """1 - cosine."""
        (fa, Ma, *_), (fb, Mb, *_) = self.of[a], self.of[b]
        _, ia, ib = np.intersect1d(fa, fb, assume_unique=True, return_indices=True)
        return float(1 - Ma[ia] @ Mb[ib] / np.sqrt(slots.square[a] * slots.square[b]))

    def join(self, slots: Slots, a: int, b: int) -> None:
        """M_a += M_b; R_a and its mutual information the mean by mass."""
        share = slots.mass[a] / (slots.mass[a] + slots.mass[b])
        (fa, *mine), (fb, *theirs) = self.of[a], self.of.pop(b)
        feature, where = np.unique(np.concatenate([fa, fb]), return_inverse=True)
        sums = [np.zeros(feature.size) for _ in mine]
        for total, x, y, (s, t) in zip(sums, mine, theirs, ((1, 1), *[(share, 1 - share)] * 2), strict=True):
            np.add.at(total, where, np.concatenate([s * x, t * y]))
        self.of[a] = feature, *sums
        slots.mass[a] += slots.mass[b]
        slots.square[a] = float(sums[0] @ sums[0])


def all_distances(entries: Entries, slots: Slots) -> Reals:
    """1 - cosine of all pairs of active prototypes of one class."""
    team = members(slots, np.ones(int(slots.cls.max(initial=0)) + 1, np.bool_))
    vectors = Vectors(entries, np.sort(team[team >= 0]), slots.kind.size)
    pairs = (
        (a, b)
        for row in team.tolist()
        for i, a in enumerate(row)
        for b in row[i + 1 :]
        if b >= 0
    )  # fmt: skip
    return np.array([vectors.distance(slots, a, b) for a, b in pairs])


def merge(entries: Entries, slots: Slots, classes: Classes, counters: Longs, threshold: float, chosen: Flags) -> None:
    """Joins prototypes of one class at most ``threshold`` apart; the bound leaves few classes to look at."""
    if classes.active.max(initial=0) < 2:
        return
    team = members(slots, chosen)
    if not team.size:
        return
    team = team[perhaps_near(entries, slots, team, 1 - threshold)]
    if not team.size:
        return
    vectors = Vectors(entries, np.sort(team[team >= 0]), slots.kind.size)
    changed: list[int] = []
    gone: list[int] = []
    for row in team.tolist():
        left = [p for p in row if p >= 0]
        for a in left:
            if a in gone:
                continue
            for p in left[left.index(a) + 1 :]:
                if p not in gone and vectors.distance(slots, a, p) <= threshold:
                    vectors.join(slots, a, p)
                    vacate(slots, p)
                    classes.active[slots.cls[a]] -= 1
                    counters[MERGED] += 1
                    gone.append(p)
                    changed.append(a)
    if gone:
        kept = sorted(set(changed) - set(gone))
        drop_slots(entries, kept + gone, slots.kind.size)
        _put(entries, vectors, kept)


def _put(entries: Entries, vectors: Vectors, chosen: list[int]) -> None:
    """Gives slots that have no entries theirs."""
    device, parts = entries.key.device, [vectors.of[p] for p in chosen]
    slot = np.repeat(np.array(chosen, np.int64), [part[0].size for part in parts])
    feature, M, R, pmi = (to_device(np.concatenate([part[i] for part in parts]), device) for i in range(4))
    entries.insert(keys_of(feature, to_device(slot, device)), columns(M, R, pmi).to(entries.M.dtype))


def centre_parts(entries: Entries, square: Tensor, rule: Rule) -> Tensor:
    """(entries,) tau |M_j| / |M_p|"""
    scale = torch.where(square > 0, rule.tau / torch.where(square > 0, square, 1.0).sqrt(), 0.0)
    return entries.M.abs() * scale[entries.slot]


def parts(entries: Entries, square: Tensor, omega: float, rule: Rule, informed: bool) -> Tensor:
    """(entries,) each one's part in its prototype's score; see `engines.maintenance.parts`."""
    correction = entries.R if informed or entries.pmi is None else entries.R - entries.pmi
    return torch.maximum(centre_parts(entries, square, rule), correction.abs() / omega)


def largest(entries: Entries, part: Tensor, square: Tensor) -> Tensor:
    """(slots,) largest part of each prototype, 0 without any."""
    return torch.zeros_like(square).scatter_reduce_(0, entries.slot, part.to(square.dtype), "amax")


def truncate(entries: Entries, old: Tensor, square: Tensor, omega: float, rule: Rule) -> None:
    """Drops entries of ``old`` slots whose part in the score is below ``truncation`` times the vector's largest."""
    part = parts(entries, square, omega, rule, informed=False)
    least = torch.where(old, rule.truncation * largest(entries, part, square), 0.0)
    entries.keep(part >= least[entries.slot])
