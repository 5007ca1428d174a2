"""The kernels compile for Hopper, also where there is no device: Triton brings its own assembler."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from prototide.core.engines.gpu import nvrtc, rank_rows

pytest.importorskip("triton", reason="NO TRITON HERE: NO KERNEL IS COMPILED")

# In a process of its own: elsewhere in this one the kernels are interpreted.
PROGRAM = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
import triton
from prototide.core.engines.gpu import kernels

F, D, I, L, A, B, T = "*fp32", "*fp64", "*i32", "*i64", "*fp16", "*bf16", "*i1"

def compiled(kernel, constants, **given):
    names = kernel.arg_names
    signature = {name: given.get(name, "constexpr") for name in names}
    constexprs = {(names.index(name),): value for name, value in constants.items()}
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if signature[name].startswith("*")
               or name in ("width", "H")}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constexprs, attrs=aligned)
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 8})
    assert made.asm["cubin"]
    print(kernel.__name__)

compiled(kernels.unit_rows, dict(BLOCK=128), indptr=L, indices=I, data=F, idf=F, x=F)
compiled(kernels.pack, dict(BLOCK=1024), key=L, M=F, R=F, scale=F, slot=I, value=B, largest=I, entries="i32", omega=F)
for copies, V in ((1, B), (2, A), (3, F)):
    compiled(
        kernels.fill_hot, dict(COPIES=copies, BLOCK=1024), hot=L, begin=L, slot=I, value=V, exponent=I, dense=A,
        width="i32", H="i32",
    )
    compiled(
        kernels.spread_hot, dict(COPIES=copies, BLOCK=128), indptr=L, indices=I, x=F, features="i32", hot_of=I, X=A,
        H="i32",
    )
compiled(
    kernels.put_back, dict(BLOCK=1024), at=L, key=L, slot=L, active=T, born=I, M=F, R=F, M_before=F, to_M=F, to_R=F,
    out_key=L, by=F, new=T, size="i32", S="i32",
)
compiled(
    kernels.spread_rows, dict(BLOCK=128), row=L, owner=L, begins=L, indptr=L, indices=I, x=F, rates=F, key=L,
    feature=L, value=F, rate=F,
)
compiled(
    kernels.move_entries, dict(PMI=True, BLOCK=1024), key=L, M=F, R=F, P=F, added=L, cuts=L, to_key=L, to_M=F, to_R=F,
    to_P=F, size="i32",
)
compiled(kernels.add_squares, dict(BLOCK=1024), value=F, key=L, unit=D, total=L, size="i32")
compiled(
    kernels.count_rows, dict(CORRECT=True, WRONG=3, PMI=True, BLOCK=128), indptr=L, feature=L, x=F, power=D, step=D,
    unit=D, total=L, features="i32",
)
for SB, correct, kernel in ((1, False, 1), (4, True, 2), (2, True, 0)):
    compiled(
        kernels.learn_classes, dict(KERNEL=kernel, CORRECT=correct, WRONG=3, SB=SB, NB=128), first=L, count=L, indptr=L,
        pair=L, x=F, rate=F, pair_first=L, M=F, R=F, M_before=F, kind_=I, mass_=D, square_=D, counts=L, wrong_=D,
        rival_class=I, rival_score=D, weight_=D, event=I, event_slot=I, own_=I, own_score=D, loss=D, right=I, step_=D,
        born_=I, source_=I, numbers=D, S="i32",
    )
"""


def test_all_kernels_compile_for_hopper() -> None:
    compiling = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM]
    ran = subprocess.run(command, env=compiling, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert set(ran.stdout.split()) == {
        "unit_rows", "pack", "fill_hot", "spread_hot", "learn_classes", "put_back", "count_rows",
        "add_squares", "spread_rows", "move_entries",
    }  # fmt: skip


@pytest.mark.skipif(not nvrtc.available(), reason="NO NVRTC HERE: THE CUDA C++ IS NOT COMPILED")
@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16, torch.float32])
def test_the_cuda_kernel_compiles_for_hopper(stored: torch.dtype) -> None:
    assert nvrtc.compiled(rank_rows.SOURCE, "sm_90", *rank_rows.options(stored)).startswith(b"\x7fELF")


@pytest.mark.skipif(not nvrtc.available(), reason="NO NVRTC HERE: THE CUDA C++ IS NOT COMPILED")
def test_the_compiler_says_what_is_wrong() -> None:
    with pytest.raises(RuntimeError, match='identifier "nothing" is undefined'):
        nvrtc.compiled("__global__ void wrong() { nothing(); }", "sm_90")
