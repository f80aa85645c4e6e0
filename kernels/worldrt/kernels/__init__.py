"""The few operations between engines: one C++ functor each, compiled for the CPU and for CUDA, with a numpy twin.

`multistep_update`, `counter_normal` and `rgb_to_yuv420` work on numpy arrays; `worldrt.kernels.cuda` has them for
device memory. `status()` says what runs on this machine.
"""

from worldrt.kernels._library import Status, status
from worldrt.kernels.color import rgb_to_yuv420
from worldrt.kernels.normal import counter_normal
from worldrt.kernels.update import MultistepUpdate, multistep_update

__all__ = ["MultistepUpdate", "Status", "counter_normal", "multistep_update", "rgb_to_yuv420", "status"]
