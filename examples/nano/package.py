"""Writes what was trained as a bundle with its checkpoint inside, float16: what the package brings along.

python examples/nano/package.py --vae runs/vae --dit runs/dit --out engine/worldrt/engine/models/nano

The weights of a bundle that is there are replaced, and its graphs kept: they hold for any weights of these shapes.
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from checkpoint import averaged, load_vae
from one_net import picture_weights
from torch import Tensor

from worldrt.engine.bundle import FILE_NAME, read_manifest, write_manifest
from worldrt.engine.packaged import CHECKPOINT, PLACE
from worldrt.export.families.cosmos.nano import TRAINED, write_checkpoint
from worldrt.export.families.cosmos.variants import variant
from worldrt.export.families.cosmos.weights import dit_keys
from worldrt.export.modules.keys import KeyMap, text_keys
from worldrt.export.plan import Options
from worldrt.export.run import export_bundle


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--vae", type=Path, required=True, help="a run of train_vae.py, with the statistics of encode.py")
    p.add_argument("--dit", type=Path, required=True, help="a run of train_dit.py")
    p.add_argument("--out", type=Path, required=True)
    args = p.parse_args()
    size_bytes = write_weights(args.vae, args.dit, args.out / CHECKPOINT)
    if not (args.out / FILE_NAME).is_file():
        write_graphs(args.out)
    print(f"{args.out}: {size_bytes / 1e6:.1f} MB of weights")
    if args.out.resolve() == PLACE / "nano":
        print("golden pictures are of other weights now: python tests/runtime/test_golden_pictures.py makes them again")


def write_graphs(out: Path) -> None:
    """Export the checkpoint in `out`, and put the graphs beside it; they compute in float32."""
    with TemporaryDirectory(dir=out.parent) as folder:
        made = Path(folder) / "bundle"
        export_bundle(Options("nano", precision="fp32"), made, checkpoint=out / CHECKPOINT, torch_program=False)
        take_graphs(made, out)


def take_graphs(made: Path, out: Path) -> None:
    """Copy what a bundle holds, and let it find its weights inside."""
    shutil.copytree(made, out, dirs_exist_ok=True)
    manifest = read_manifest(made)
    write_manifest(out, replace(manifest, weights=replace(manifest.weights, root=CHECKPOINT)))


def write_weights(vae_run: Path, dit_run: Path, out: Path) -> int:
    """Write the checkpoint; the bytes of its weights."""
    video = variant("nano", "video2world")
    trained = averaged(dit_run)
    text, dit = (under(trained, part) for part in ("text.", "dit."))
    weights = {
        "text2image": renamed(picture_weights(dit, video.dit), dit_keys()),
        "video2world": renamed(dit, dit_keys()),
        "vae": dict(load_vae(vae_run).state_dict()),
        "text_encoder": renamed(text, text_keys(video.t5.gated)),
    }
    half = {part: {key: t.half().contiguous() for key, t in tensors.items()} for part, tensors in weights.items()}
    write_checkpoint(out, half, TRAINED)
    return sum(file.stat().st_size for file in out.rglob("*.safetensors"))


def under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def renamed(tensors: dict[str, Tensor], keys: KeyMap) -> dict[str, Tensor]:
    return {keys.key(name, "diffusers"): tensor for name, tensor in tensors.items()}


if __name__ == "__main__":
    main()
