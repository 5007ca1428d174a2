"""Learning a group by the kernels. References: the functions of the same names in `learning`."""

from __future__ import annotations

import numpy as np
import torch
import triton
from torch import Tensor

from prototide.core.engines.gpu import kernels
from prototide.core.engines.gpu.entries import Entries, roomy
from prototide.core.engines.gpu.group import Changes, Group, Outcome, new_outcome
from prototide.core.engines.gpu.rows import DeviceRows, to_device
from prototide.core.engines.gpu.sums import BITS, power_of_two
from prototide.core.engines.tables import Rule


def spread_rows(
    rows: DeviceRows, x: Tensor, rates: Tensor, row: Tensor, owner: Tensor, indptr: Tensor, nonzeros: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One program a row. Reference: `group.spread_rows`."""
    key, feature = indptr.new_empty(nonzeros), indptr.new_empty(nonzeros)
    value, rate = x.new_empty(nonzeros), x.new_empty(nonzeros)
    if nonzeros:
        kernels.spread_rows[(row.numel(),)](
            row, owner, indptr, rows.indptr, rows.indices, x, rates, key, feature, value, rate, BLOCK=128, num_warps=1
        )
    return key, feature, value, rate


def learn(group: Group, rule: Rule, omega: float, mean_loss: float) -> Outcome:
    """One program a class."""
    outcome, tables, slots = new_outcome(group), group.tables, group.M.shape[1]
    noise = rule.noise + rule.noise_adapt * mean_loss
    numbers = (omega, rule.tau, rule.margin, rule.width, rule.grow_gain, rule.grow_z, rule.grow_after, rule.trial_rows,
               rule.min_share, rule.correction, noise)  # fmt: skip
    kernels.learn_classes[(group.first.numel(),)](
        group.first, group.count, group.indptr, group.pair, group.x, group.rate, group.pair_first, group.M, group.R,
        group.M_before, tables.kind, tables.mass, tables.square, tables.counts, group.wrong,
        group.rival_class, group.rival_score, group.weight, outcome.event,
        outcome.event_slot, outcome.own, outcome.own_score, outcome.loss, outcome.right, outcome.step, outcome.born,
        outcome.source, to_device(np.array(numbers, np.float64), group.x.device), slots,
        KERNEL=rule.kernel, CORRECT=rule.correction > 0, WRONG=rule.wrong_classes,
        SB=triton.next_power_of_2(slots), NB=128, num_warps=4 if slots > 1 else 2,
    )  # fmt: skip
    return outcome


def put_back(group: Group, outcome: Outcome, entries: Entries) -> Changes:
    """One thread an entry of the group's tables."""
    size, slots = group.at.numel(), group.at.shape[1]
    changes = Changes(torch.empty_like(group.at.view(-1)), torch.empty_like(group.M.view(-1)),
                      group.at.new_empty(size, dtype=torch.bool))  # fmt: skip
    if size:
        kernels.put_back[(triton.cdiv(size, 1024),)](
            group.at, group.key, group.slot, group.active, outcome.born, group.M, group.R, group.M_before, entries.M,
            entries.R, changes.key, changes.by, changes.new, size, slots, BLOCK=1024,
        )  # fmt: skip
    return changes


def squares(values: Tensor, keys: Tensor, most: Tensor) -> Tensor:
    """`sums.squares_by` of the keys' slots."""
    shift = (BITS - 4 - torch.frexp(most).exponent).clamp(-1000, 1000).to(torch.int64)
    total = torch.zeros(most.numel(), dtype=torch.int64, device=values.device)
    if values.numel():
        kernels.add_squares[(triton.cdiv(values.numel(), 1024),)](
            values, keys, power_of_two(shift), total, values.numel(), BLOCK=1024
        )
    return total.double() * power_of_two(-shift)


def count(group: Group, outcome: Outcome, rule: Rule, omega: float, features: int) -> Tensor:
    """In whole numbers: no sum is above the rows' weights times the classes that they are corrected against."""
    rows = group.row.numel()
    total = torch.zeros(3, features, dtype=torch.int64, device=group.x.device)
    most = group.weight.amax() * (omega * rows * max(1, rule.wrong_classes)) if rows else group.weight.new_ones(())
    shift = (BITS - torch.frexp(most).exponent).clamp(-1000, 1000).to(torch.int64)
    unit = power_of_two(shift)
    if rows:
        kernels.count_rows[(rows,)](
            group.indptr, group.feature, group.x, group.weight * omega, outcome.step, unit, total, features,
            CORRECT=rule.correction > 0, WRONG=rule.wrong_classes, PMI=rule.pmi > 0, BLOCK=128, num_warps=1,
        )  # fmt: skip
    return total.double() * power_of_two(-shift)


def moved(key: Tensor, values: list[Tensor], added: Tensor) -> tuple[Tensor, list[Tensor]]:
    """A block of entries looks for its places in a part of the added. Reference: `entries.moved`."""
    size, block = key.numel(), 1024
    there = [roomy(old, size + added.numel()) for old in (key, *values)]
    if size:
        cuts = torch.nn.functional.pad(
            torch.searchsorted(added, key[::block].contiguous()), (0, 1), value=added.numel()
        )
        kernels.move_entries[(triton.cdiv(size, block),)](
            key, values[0], values[1], values[-1], added, cuts, *there[:3], there[-1], size, PMI=len(values) == 3,
            BLOCK=block,
        )  # fmt: skip
    return there[0], there[1:]
