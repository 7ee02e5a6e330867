"""Functions that the kernels share: matrix products, and the draws of dropout."""

# Triton has no type stubs, and the arguments of a kernel are pointers and tiles of its language.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

import triton
import triton.language as tl

_interpreted = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def dot(a, b, total):
    """Compute a @ b + total in fp32."""
    if _interpreted:  # the interpreter would multiply the bit patterns of bf16
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, total, input_precision="ieee")


@triton.jit
def _mixed(bits):
    """Permute 32-bit numbers so that each bit depends on all (Wellons' lowbias32).

    The work is a third of that of Philox.
    """
    bits ^= bits >> 16
    bits *= 0x7FEB352D
    bits ^= bits >> 15
    bits *= 0x846CA68B
    bits ^= bits >> 16
    return bits


@triton.jit
def dropout_factor(seed, stream, index, dropout):
    """Return 0 or 1 / (1 - dropout) for each `index` (int32) of a stream.

    The factor is a pure function of seed (int64), stream (an integer) and index. The probability is
    exact to 2^-32.
    """
    low, high = seed.to(tl.uint32), (seed >> 32).to(tl.uint32)
    start = _mixed(_mixed(_mixed(stream.to(tl.uint32)) ^ low) ^ high)
    # Each stream has its own stride. Streams that differ in their start alone would overlap, and
    # then drop alike.
    stride = _mixed(start) | 1
    bits = _mixed(index.to(tl.uint32) * stride + start)
    return tl.where(bits >= tl.cast(dropout * 4294967296.0, tl.uint32), 1.0 / (1.0 - dropout), 0.0)
