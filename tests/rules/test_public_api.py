"""What others may import. A change here is a change for every user: make it on purpose."""

import importlib

import pytest

PUBLIC = {
    "worldrt.engine": {
        "Buffer", "Bundle", "Call", "Device", "Session", "TensorSpec", "WeightStore", "WorldrtError", "host_buffer",
        "load_bundle", "open_device", "open_session", "open_weights",
    },
    "worldrt.runtime": {
        "BestOfN", "BestOfNRequest", "Cancelled", "Execution", "Generator", "Job", "Models", "Observer", "Request",
        "Text2Image", "Text2World", "Video2World",
    },
    "worldrt.kernels": {"MultistepUpdate", "Status", "counter_normal", "multistep_update", "rgb_to_yuv420", "status"},
}  # fmt: skip


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names(module):
    found = importlib.import_module(module)
    assert set(found.__all__) == PUBLIC[module]
    for name in found.__all__:
        assert getattr(found, name).__doc__, f"{name} is public and says nothing of itself"
