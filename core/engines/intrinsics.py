"""What a compiler does not do by itself. The functions are what Python does for them; kernels get one instruction."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload
from numpy.typing import NDArray

BYTE, NUMBER = ir.IntType(8), ir.IntType(32)
READ, KEPT, DATA = NUMBER(0), NUMBER(3), NUMBER(1)  # to be read, in all caches, data: see llvm.prefetch


def prefetch(array: NDArray[Any], at: int) -> None:
    """The cache line of array[at] will be read soon; ``at`` may be beyond the end."""


def move_items(array: NDArray[Any], source: int, target: int, count: int) -> None:
    """Copies items to where they may overlap themselves: a loop that goes backwards is not vectorised."""
    array[target : target + count] = array[source : source + count]


@intrinsic
def _prefetch(typing: Any, array: Any, at: Any) -> Any:
    def called(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.bitcast(_item(context, builder, signature.args[0], *arguments), BYTE.as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [BYTE.as_pointer(), NUMBER, NUMBER, NUMBER])
        function: Any = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")  # type: ignore[no-untyped-call]
        builder.call(function, [place, READ, KEPT, DATA])
        return context.get_dummy_value()

    return types.void(array, types.intp), called


@intrinsic
def _memmove(typing: Any, array: Any, source: Any, target: Any, count: Any) -> Any:
    def called(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, source, target, count = arguments
        kind = signature.args[0]
        size = context.get_abi_sizeof(context.get_data_type(kind.dtype))
        source, target = (_item(context, builder, kind, array, at) for at in (source, target))
        cgutils.raw_memmove(builder, target, source, count, size)  # type: ignore[no-untyped-call]
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, types.intp), called


def _item(context: Any, builder: Any, kind: Any, array: Any, at: Any) -> Any:
    """Where array[at] lies."""
    return builder.gep(context.make_array(kind)(context, builder, array).data, [at])


@overload(prefetch, strict=False)  # strict: the annotations, too, would have to be the same
def _in_kernels_prefetch(array: Any, at: Any) -> Any:
    return lambda array, at: _prefetch(array, at)


@overload(move_items, strict=False)
def _in_kernels_move_items(array: Any, source: Any, target: Any, count: Any) -> Any:
    return lambda array, source, target, count: _memmove(array, source, target, count)
