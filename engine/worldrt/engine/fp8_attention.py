"""FP8 attention: what an ONNX graph cannot say of it.

A graph can dequantise q, k and v just before an Attention, but not quantise its softmax, and a library multiplies in
FP8 only where both sides are. So where the values are FP8, the softmax is told to be, with a scale that takes 1 to the
largest number of E4M3. Measured with TensorRT-RTX 1.7: without this, attention over dequantised q, k, v is compiled in
half precision; with it, in FP8, if no sequence of the profile is shorter than 32.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from worldrt.engine.network import attention_inputs

SOFTMAX_SCALE = 1 / 448
_SCALE = np.array(SOFTMAX_SCALE, np.float32)  # a network does not copy it, so it lives as long as the module


def quantize_softmax(trt: Any, network: Any) -> int:
    """Quantise the softmax of every attention whose values come from FP8; how many. `trt` is the library's module."""
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    from_fp8 = {
        layer.get_output(0).name
        for layer in layers
        if layer.type == trt.LayerType.DEQUANTIZE and layer.get_input(0).dtype == trt.DataType.FP8
    }
    count = 0
    for layer in list(attention_inputs(trt, network)):  # constants are added meanwhile
        if layer.get_input(2).name in from_fp8:
            scale = network.add_constant((), trt.Weights(_SCALE)).get_output(0)
            layer.attention.normalization_quantize_to_type = trt.DataType.FP8
            layer.attention.normalization_quantize_scale = scale
            count += 1
    return count
