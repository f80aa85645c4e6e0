"""In the place of `worldrt.kernels.cuda`: the CPU kernels, on the stream of a fake GPU, on the same memory."""

from __future__ import annotations

import numpy as np

from worldrt.kernels import counter_normal, multistep_update
from worldrt.kernels import cuda as kernels_cuda

ARRAYS = ("uncond", "prev", "noise", "coefficients", "fill", "out", "guided_out", "first", "scales")


def install_kernels(monkeypatch, cuda):
    """Put the fakes in the places of the real ones."""

    def array(source):
        """Live memory of a buffer or of a strided view of one; fails where it is none."""
        if source is None:
            return None
        interface = source.__cuda_array_interface__
        dtype, shape = np.dtype(interface["typestr"]), interface["shape"]
        strides = interface["strides"] or tuple(
            dtype.itemsize * int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))
        )
        extent = dtype.itemsize + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
        memory = cuda.view(interface["data"][0], extent)
        return np.ndarray(shape, dtype, memory, 0, strides)

    def fake(kernel):
        def launch(*arrays, stream, **options):
            def run():
                given = {name: array(value) if name in ARRAYS else value for name, value in options.items()}
                kernel(*map(array, arrays), **given)

            cuda.calls[kernel.__name__] += 1
            cuda.enqueue(stream, run)

        return launch

    for kernel in (multistep_update, counter_normal):
        monkeypatch.setattr(kernels_cuda, kernel.__name__, fake(kernel))
    monkeypatch.setattr(kernels_cuda, "missing", lambda: None)
