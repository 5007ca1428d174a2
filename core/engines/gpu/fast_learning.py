"""Learning a group by the kernel: one program a class."""

from __future__ import annotations

import torch
import triton

from prototide.core.engines.gpu import kernels
from prototide.core.engines.gpu.group import Group, Outcome, new_outcome
from prototide.core.engines.tables import Rule


def learn(group: Group, rule: Rule, omega: float, mean_loss: float) -> Outcome:
    """What `learning.learn` does."""
    outcome, tables, slots = new_outcome(group), group.tables, group.M.shape[1]
    noise = rule.noise + rule.noise_adapt * mean_loss
    numbers = (omega, rule.tau, rule.margin, rule.width, rule.grow_gain, rule.grow_z, rule.grow_after, rule.trial_rows,
               rule.min_share, rule.correction, noise)  # fmt: skip
    kernels.learn_classes[(group.first.numel(),)](
        group.first, group.count, group.indptr, group.pair, group.x, group.rate, group.pair_first, group.M, group.R,
        group.M_before, tables.kind, tables.mass, tables.square, tables.counts, group.wrong,
        group.rival_class.contiguous(), group.rival_score.contiguous(), group.weight, outcome.event,
        outcome.event_slot, outcome.own, outcome.own_score, outcome.loss, outcome.right, outcome.step, outcome.born,
        outcome.source, torch.tensor(numbers, dtype=torch.float64, device=group.x.device), slots,
        KERNEL=rule.kernel, CORRECT=rule.correction > 0, WRONG=rule.wrong_classes,
        SB=triton.next_power_of_2(slots), NB=128, num_warps=4 if slots > 1 else 2,
    )  # fmt: skip
    return outcome
