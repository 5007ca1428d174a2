"""What the compiler does not do by itself, for kernels only."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

BYTE, NUMBER = ir.IntType(8), ir.IntType(32)
READ, KEPT, DATA = NUMBER(0), NUMBER(3), NUMBER(1)  # to be read, in all caches, data: see llvm.prefetch


def _item(context: Any, builder: Any, kind: Any, array: Any, at: Any) -> Any:
    """Where array[at] lies."""
    return builder.gep(context.make_array(kind)(context, builder, array).data, [at])


def _prefetch(typing: Any, array: Any, at: Any) -> Any:
    """prefetch(array, at): the cache line of array[at] will be read soon; ``at`` may be beyond the end."""

    def called(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.bitcast(_item(context, builder, signature.args[0], *arguments), BYTE.as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [BYTE.as_pointer(), NUMBER, NUMBER, NUMBER])
        function: Any = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")  # type: ignore[no-untyped-call]
        builder.call(function, [place, READ, KEPT, DATA])
        return context.get_dummy_value()

    return types.void(array, types.intp), called


def _move_items(typing: Any, array: Any, source: Any, target: Any, count: Any) -> Any:
    """move_items(array, source, target, count): memmove. A loop that copies backwards is not vectorised."""

    def called(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, source, target, count = arguments
        kind = signature.args[0]
        size = context.get_abi_sizeof(context.get_data_type(kind.dtype))
        source, target = (_item(context, builder, kind, array, at) for at in (source, target))
        cgutils.raw_memmove(builder, target, source, count, size)  # type: ignore[no-untyped-call]
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, types.intp), called


prefetch: Any = intrinsic(_prefetch)
move_items: Any = intrinsic(_move_items)
