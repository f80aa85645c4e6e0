"""Writes what was trained as a nano checkpoint, float16, that `trt-export --model nano --checkpoint` takes.

python examples/nano/package.py --vae runs/vae --dit runs/dit --out runs/nano
"""

from __future__ import annotations

import argparse
from pathlib import Path

from checkpoint import averaged, load_vae
from one_net import picture_weights
from torch import Tensor

from worldrt.export.families.cosmos.nano import write_checkpoint
from worldrt.export.families.cosmos.variants import variant
from worldrt.export.families.cosmos.weights import dit_keys
from worldrt.export.modules.keys import KeyMap, text_keys


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--vae", type=Path, required=True, help="a run of train_vae.py, with the statistics of encode.py")
    p.add_argument("--dit", type=Path, required=True, help="a run of train_dit.py")
    p.add_argument("--out", type=Path, required=True)
    args = p.parse_args()
    size_bytes = package(args.vae, args.dit, args.out)
    print(f"{args.out}: {size_bytes / 1e6:.1f} MB of weights")


def package(vae_run: Path, dit_run: Path, out: Path) -> int:
    """Write the checkpoint; the bytes of its weights."""
    video = variant("nano", "video2world")
    trained = averaged(dit_run)
    text, dit = (_under(trained, part) for part in ("text.", "dit."))
    weights = {
        "text2image": _renamed(picture_weights(dit, video.dit), dit_keys()),
        "video2world": _renamed(dit, dit_keys()),
        "vae": dict(load_vae(vae_run).state_dict()),
        "text_encoder": _renamed(text, text_keys(video.t5.gated)),
    }
    half = {part: {key: t.half().contiguous() for key, t in tensors.items()} for part, tensors in weights.items()}
    write_checkpoint(out, half, {"trained": "examples/nano"})
    return sum(file.stat().st_size for file in out.rglob("*.safetensors"))


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _renamed(tensors: dict[str, Tensor], keys: KeyMap) -> dict[str, Tensor]:
    return {keys.key(name, "diffusers"): tensor for name, tensor in tensors.items()}


if __name__ == "__main__":
    main()
