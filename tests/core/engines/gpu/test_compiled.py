"""The kernels compile for Hopper, also where there is no device: Triton brings its own assembler."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="NO TRITON HERE: NO KERNEL IS COMPILED")

# In a process of its own: elsewhere in this one the kernels are interpreted.
PROGRAM = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
import triton
from prototide.core.engines.gpu import kernels

F, D, I, L, B = "*fp32", "*fp64", "*i32", "*i64", "*bf16"

def compiled(kernel, constants, **given):
    names = kernel.arg_names
    signature = {name: given.get(name, "constexpr") for name in names}
    constexprs = {(names.index(name),): value for name, value in constants.items()}
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if signature[name].startswith("*")
               or name in ("width", "X_width", "H")}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constexprs, attrs=aligned)
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 8})
    print(kernel.__name__, "wgmma" if "wgmma" in made.asm["ptx"] else "")

for X, precision, BK in ((B, "ieee", 64), (F, "tf32x3", 32)):
    for top in (True, False):
        compiled(
            kernels.score_tile, dict(TOP=top, PRECISION=precision, BM=128, BN=256, BK=BK), X=X, dense=X, sums=I, unit=F,
            bench=F, best_score=F, best_slot=I, n="i32", K="i32", width="i32", X_width="i32", H="i32", tiles="i32",
        )
compiled(kernels.unit_rows, dict(BLOCK=128), indptr=L, indices=I, data=F, idf=F, x=F)
compiled(kernels.pack, dict(BLOCK=1024), key=L, M=F, R=F, scale=F, slot=I, value=B, entries="i32", omega=F)
compiled(kernels.fill_hot, dict(BLOCK=1024), hot=L, begin=L, slot=I, value=B, dense=B, width="i32")
compiled(
    kernels.scatter_rare, dict(SPLIT=True, BLOCK=128), indptr=L, indices=I, x=F, features="i32", hot_of=I, begin=L,
    slot=I, value=B, unit=F, sums=I, X=B, width="i32", X_width="i32", H="i32",
)
compiled(
    kernels.select, dict(GIVEN=False, DEPTH=4, BLOCK=4096), score=F, slot=I, cls=I, bench=F, out_score=F, out_slot=I,
    K="i32", width="i32", out_width="i32",
)
for SB, correct, kernel in ((1, False, 1), (4, True, 2), (2, True, 0)):
    compiled(
        kernels.learn_classes, dict(KERNEL=kernel, CORRECT=correct, WRONG=3, SB=SB, NB=128), first=L, count=L, indptr=L,
        pair=L, x=F, rate=F, pair_first=L, M=F, R=F, M_before=F, kind_=I, mass_=D, square_=D, counts=L, wrong_=D,
        rival_class=L, rival_score=D, weight_=D, event=I, event_slot=I, own_=I, own_score=D, loss=D, right=I, step_=D,
        born_=I, source_=I, numbers=D, S="i32",
    )
"""


def test_all_kernels_compile_for_hopper() -> None:
    compiling = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM]
    ran = subprocess.run(command, env=compiling, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    kernels = {line.split()[0] for line in ran.stdout.splitlines()}
    assert kernels == {"score_tile", "unit_rows", "pack", "fill_hot", "scatter_rare", "select", "learn_classes"}
    assert ran.stdout.count("score_tile wgmma") == 4  # the tensor cores' own instructions
