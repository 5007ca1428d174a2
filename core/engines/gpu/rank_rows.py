"""The last step of scoring: what the rare features add to a row's scores, and its best classes.

One block of threads a row and part of the slots, whose scores lie in shared memory as whole numbers, so that the order
of the additions does not matter:

    whole_p = round(unit hot_p) + sum over the row's rare features j and their entries p of round(unit x_j V_pj)

with the unit 2^(29 - e - h), all |V| <= 2^e and h = ceil(log2(non-zeros) / 2): |whole| stays below 2^30, because rows
have length 1 and |x|_1 is at most the root of the non-zeros.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from prototide.core.engines.gpu.nvrtc import Kernel
from prototide.core.engines.gpu.rows import DeviceRows
from prototide.core.engines.gpu.sums import ranges
from prototide.core.engines.gpu.vector_layout import PRODUCT_SCALE, SLOT_STEP
from prototide.core.engines.gpu.vectors import Vectors

PART = 18_432  # slots, at most, whose scores one block keeps: 72 KB, so that three blocks share a multiprocessor
THREADS = 512
BITS = 29

SOURCE = r"""
__device__ float two_to(int exponent) { return __int_as_float((exponent + 127) << 23); }

#if MANTISSA == 23
typedef float Stored;
__device__ float value_of(Stored v) { return v; }
#elif MANTISSA == 10
typedef unsigned short Stored;  // float16
__device__ float value_of(Stored v) { float f; asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(v)); return f; }
#else
typedef unsigned short Stored;  // bfloat16
__device__ float value_of(Stored v) { return __int_as_float((unsigned)v << 16); }
#endif

__device__ long long first_at(const int* slot, long long begin, long long end, int least) {
    while (begin < end) {
        long long middle = (begin + end) / 2;
        if (slot[middle] < least) begin = middle + 1; else end = middle;
    }
    return begin;
}

__device__ long long larger(long long a, long long b) { return a > b ? a : b; }

// grid (rows, parts); best and which: (rows, parts * depth), best first; equal scores: lowest slot first
extern "C" __global__ void __launch_bounds__(THREADS, 3) rank_rows(
    int from, const long long* indptr, const int* indices, const float* x, const int* hot_of, const long long* begin,
    const int* slot, const Stored* value, const int* exponent, const float* hot, const unsigned* active,
    const int* cls, const int* members, int most, int features, int width, int part, int depth,
    const int* kept, float* scores, float* best, int* which)
{
    extern __shared__ int whole[];
    __shared__ int next;
    __shared__ long long found[THREADS / 32];
    const int row = from + blockIdx.x, lo = blockIdx.y * part, count = min(part, width - lo);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const long long first = indptr[row], last = indptr[row + 1];
    const int half = last - first > 1 ? (33 - __clz((int)(last - first) - 1)) / 2 : 0;
    const float unit = two_to(29 - *exponent - half), of_hot = two_to(29 - 2 * PRODUCT_BITS - half);

    const float4* start = (const float4*)(hot + (long long)blockIdx.x * width + lo);
    for (int i = threadIdx.x; i < count / 4; i += THREADS) {
        float4 v = start[i];
        ((int4*)whole)[i] = make_int4(__float2int_rn(v.x * of_hot), __float2int_rn(v.y * of_hot),
                                      __float2int_rn(v.z * of_hot), __float2int_rn(v.w * of_hot));
    }
    if (threadIdx.x == 0) next = THREADS / 32;
    __syncthreads();

    for (int n = warp; n < last - first;) {  // a warp takes the next non-zero when it is done with one
        const int j = indices[first + n];
        if (j < features && hot_of[j] < 0) {
            const float v = x[first + n] * unit;
            long long e = begin[j], end = begin[j + 1];
            if (gridDim.y > 1) {
                e = first_at(slot, e, end, lo);
                end = first_at(slot, e, end, lo + count);
            }
            #pragma unroll 4
            for (e += lane; e < end; e += 32)
                atomicAdd(whole + slot[e] - lo, __float2int_rn(value_of(value[e]) * v));
        }
        if (lane == 0) n = atomicAdd(&next, 1);
        n = __shfl_sync(~0u, n, 0);
    }
    __syncthreads();

    if (kept[row] >= 0) {
        float* mine = scores + (long long)kept[row] * width + lo;
        for (int i = threadIdx.x; i < count; i += THREADS) mine[i] = whole[i] / unit;
    }
    for (int d = 0; d < depth; d++) {
        long long top = (long long)0x80000000 << 32;
        for (int i = threadIdx.x; i < count; i += THREADS)
            if (active[(lo + i) / 32] >> (i % 32) & 1)
                top = larger(top, (long long)whole[i] << 32 | (0xffffffffu - (lo + i)));
        for (int o = 16; o; o /= 2) top = larger(top, __shfl_xor_sync(~0u, top, o));
        if (lane == 0) found[warp] = top;
        __syncthreads();
        for (int w = 0; w < THREADS / 32; w++) top = larger(top, found[w]);
        const int points = (int)(top >> 32), p = points == 0x80000000 ? -1 : (int)(0xffffffffu - (unsigned)top);
        if (threadIdx.x == 0) {
            const long long at = ((long long)row * gridDim.y + blockIdx.y) * depth + d;
            best[at] = p < 0 ? __int_as_float(0xff800000) : points / unit;
            which[at] = p;
        }
        if (p >= 0 && d + 1 < depth)  // the other slots of this class are out
            for (int m = threadIdx.x; m < most; m += THREADS) {
                const int out = members[(long long)cls[p] * most + m] - lo;
                if (out >= 0 && out < count) whole[out] = 0x80000000;
            }
        __syncthreads();
    }
}
"""


def options(stored: torch.dtype) -> list[str]:
    """The compiler's, for vectors in this format."""
    constants = {
        "MANTISSA": {torch.bfloat16: 7, torch.float16: 10, torch.float32: 23}[stored],
        "THREADS": THREADS,
        "PRODUCT_BITS": PRODUCT_SCALE.bit_length() - 1,
    }
    return ["-std=c++17", *(f"-D{name}={value}" for name, value in constants.items())]


@cache
def _kernel(device: torch.device, stored: torch.dtype) -> Kernel:
    return Kernel(SOURCE, "rank_rows", device, 4 * PART, *options(stored))


def parts(width: int) -> tuple[int, int]:
    """(how many blocks share the slots of a row, slots of each)"""
    number = -(-width // PART)
    return number, -(-width // (number * SLOT_STEP)) * SLOT_STEP


def rank_rows(
    rows: DeviceRows, x: Tensor, first: int, hot: Tensor, vectors: Vectors, depth: int, kept: Tensor, scores: Tensor,
    best: Tensor, which: Tensor,
) -> None:  # fmt: skip
    """Score and slot of the ``depth`` best classes of some rows from ``first`` on, for each part of the slots.

    ``hot``: (some rows, width) products of the hot features, times PRODUCT_SCALE^2 / 2^e; ``kept``: (n,) int32, which
    row of ``scores`` takes a row's scores of all slots, -1 for none; ``best``, ``which``: (n, parts x depth), filled
    in, best first; -inf and -1 for none.
    """
    if not hot.is_cuda:
        reference(rows, x, first, hot, vectors, depth, kept, scores, best, which)
        return
    width = vectors.cls.numel()
    number, part = parts(width)
    _kernel(x.device, vectors.value.dtype).launch(
        (hot.shape[0], number), THREADS, 4 * part,
        (first, rows.indptr, rows.indices, x, vectors.hot_of, vectors.begin, vectors.slot, vectors.value,
         vectors.exponent, hot, vectors.active, vectors.cls, vectors.members, vectors.members.shape[1],
         vectors.hot_of.numel(), width, part, depth, kept, scores, best, which),
    )  # fmt: skip


def reference(
    rows: DeviceRows, x: Tensor, first: int, hot: Tensor, vectors: Vectors, depth: int, kept: Tensor, scores: Tensor,
    best: Tensor, which: Tensor,
) -> None:  # fmt: skip
    """`rank_rows` by torch alone."""
    last = first + hot.shape[0]
    some, x = rows.part(first, last), x[int(rows.ends[first]) : int(rows.ends[last])]
    score = _whole_scores(some, x, hot, vectors)
    row = torch.nonzero(kept[first:last] >= 0)[:, 0]
    scores[kept[first + row].long()] = score[row]
    number, part = parts(vectors.cls.numel())
    slots = torch.arange(score.shape[1], device=x.device)
    for p in range(number):
        played = torch.where(vectors.plays & (slots // part == p), score, -torch.inf)
        for column in range(p * depth, (p + 1) * depth):
            top = played.amax(1)
            lowest = torch.where(played == top[:, None], slots, score.shape[1]).amin(1)
            best[first:last, column] = top
            which[first:last, column] = torch.where(top > -torch.inf, lowest, -1).int()
            its = vectors.cls[lowest.clamp(max=score.shape[1] - 1)]
            played = torch.where(vectors.cls == its[:, None], -torch.inf, played)


def _whole_scores(rows: DeviceRows, x: Tensor, hot: Tensor, vectors: Vectors) -> Tensor:
    """(n, width) scores, rounded as the kernel rounds them."""
    half = torch.ceil(torch.ceil(torch.log2(torch.diff(rows.indptr).clamp(min=1).double())) / 2)
    unit = torch.exp2(BITS - vectors.exponent - half)
    whole = torch.round(hot.double() * (torch.exp2(BITS - half) / PRODUCT_SCALE**2)[:, None]).long()
    features = vectors.hot_of.numel()
    hot_of = torch.nn.functional.pad(vectors.hot_of, (0, 1), value=0)  # features never learned have no entries
    rare = hot_of[rows.indices.clamp(max=features).long()] < 0
    feature, row = rows.indices[rare].long(), rows.row[rare]
    of, at = ranges(vectors.begin[feature], vectors.begin[feature + 1] - vectors.begin[feature])
    added = torch.round(vectors.value[at].float() * (x[rare] * unit[row].float())[of]).long()
    whole.index_put_((row[of], vectors.slot[at].long()), added, accumulate=True)
    return (whole / unit[:, None]).float()
