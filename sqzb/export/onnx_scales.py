"""Static scales of activations in 8-bit integers, calibrated on texts.

A dynamic scale is that of the largest number in the batch, so it costs a pass over the activations,
and a text's result depends on the texts beside it. A static scale has neither disadvantage, but
numbers outside the calibrated range are cut.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

DYNAMIC = "DynamicQuantizeLinear"
LARGEST = 255  # of an unsigned integer of 8 bits


class Scale(NamedTuple):
    """Numbers as integers: x is close to (integer - zero) * scale."""

    scale: float
    zero: int


def calibrate(proto: Any, batches: Iterable[Mapping[str, NDArray[np.int64]]]) -> list[Scale]:
    """Return a scale for each dynamic quantisation of a graph, in the graph's order.

    The scale covers the range of all numbers that the graph quantises there.

    proto: a graph with dynamic scales.
    batches: inputs by name, without padding.
    """
    import onnxruntime
    from onnx import TensorProto, helper

    observed = type(proto)()
    observed.CopyFrom(proto)
    names = []
    for node in proto.graph.node:
        if node.op_type == DYNAMIC:
            names += node.output[1:]
    for number, name in enumerate(names):
        kind = TensorProto.UINT8 if number % 2 else TensorProto.FLOAT
        observed.graph.output.append(helper.make_tensor_value_info(name, kind, []))

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    content = observed.SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    low = np.zeros(len(names) // 2)
    high = np.zeros(len(names) // 2)
    for batch in batches:
        values = np.array([float(value) for value in session.run(names, dict(batch))])
        scales, zeros = values[::2], values[1::2]
        low = np.minimum(low, -zeros * scales)
        high = np.maximum(high, (LARGEST - zeros) * scales)
    steps = np.where(high > low, (high - low) / LARGEST, 1.0)
    zeros = np.rint(-low / steps)
    return [Scale(float(step), int(zero)) for step, zero in zip(steps, zeros, strict=True)]
