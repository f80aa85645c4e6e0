"""What the base install can import, and what importing costs."""

import json
import subprocess
import sys

import pytest

BARE = """
import importlib, importlib.abc, json, pkgutil, sys

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named '{{name}}'", name=name)

sys.meta_path.insert(0, Refuse())

def walk(name):
    module = importlib.import_module(name)
    for found in pkgutil.iter_modules(getattr(module, "__path__", [])):
        if found.name != "__main__":
            walk(f"{{name}}.{{found.name}}")

for name in {packages!r}:
    {action}
print(json.dumps(sorted(sys.modules)))
"""
OUTSIDE_BASE = [
    "torch", "onnx", "onnx_ir", "onnxscript", "safetensors", "diffusers", "transformers", "polygraphy", "ml_dtypes",
    "tensorrt", "tensorrt_rtx", "cuda", "ray", "carla", "nvidia", "PyNvVideoCodec", "PIL", "cv2", "psutil",
    "httpx", "jinja2", "markupsafe", "aiohttp", "prometheus_client", "matplotlib",
]  # fmt: skip


def run(packages, action, absent):
    code = BARE.format(packages=packages, action=action, absent=absent)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return set(json.loads(result.stdout))


def test_the_base_install_imports_every_module_of_the_runtime():
    run(["worldrt.kernels", "worldrt.engine", "worldrt.runtime"], "walk(name)", OUTSIDE_BASE)


@pytest.mark.parametrize("name", ["worldrt.runtime", "worldrt.runtime.cli", "worldrt.export.cli"])
def test_importing_is_light(name):
    """The heavy packages wait until they are used; that keeps `--help` and embedding quick."""
    heavy = {"torch", "onnx", "onnxruntime", "av", "tokenizers", "transformers", "diffusers"}
    assert heavy.isdisjoint(run([name], "importlib.import_module(name)", []))
