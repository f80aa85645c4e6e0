"""Writes the trained Matrix nano as a bundle with its checkpoint inside, float16: what the package brings along.

python examples/nano/package_world.py --decoder runs/decoder --encoder runs/encoder --world runs/world \\
    --out engine/worldrt/engine/models/nano-matrix

The weights of a bundle that is there are replaced, and its graphs kept: they hold for any weights of these shapes.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

from checkpoint import averaged
from package import renamed, take_graphs, under
from torch import Tensor

from worldrt.engine.bundle import FILE_NAME
from worldrt.engine.packaged import CHECKPOINT
from worldrt.export.families.matrix.control import EMBEDDINGS
from worldrt.export.families.matrix.nano import TRAINED, write_checkpoint
from worldrt.export.families.matrix.variants import NANO, variant
from worldrt.export.modules.keys import text_keys
from worldrt.export.plan import Options
from worldrt.export.run import export_bundle


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--decoder", type=Path, required=True, help="a run of train_matrix_vae.py --part decoder")
    p.add_argument("--encoder", type=Path, required=True, help="a run of train_matrix_vae.py --part encoder")
    p.add_argument("--world", type=Path, required=True, help="a run of distill_world.py")
    p.add_argument("--out", type=Path, required=True)
    args = p.parse_args()
    write_checkpoint(args.out / CHECKPOINT, weights(args.decoder, args.encoder, args.world), TRAINED)
    if not (args.out / FILE_NAME).is_file():
        write_graphs(args.out)
    size_bytes = sum(file.stat().st_size for file in args.out.rglob("*.safetensors"))
    print(f"{args.out}: {size_bytes / 1e6:.1f} MB of weights")


def weights(decoder: Path, encoder: Path, world: Path) -> dict[str, dict[str, Tensor]]:
    """By part, float16, with the keys of published checkpoints."""
    trained = averaged(world)
    keys = text_keys(variant(NANO).t5.gated)
    parts = {
        "transformer": under(trained, "dit."),
        "vae": averaged(decoder) | averaged(encoder),
        "text_encoder": renamed(under(trained, "text.t5."), keys),
    }
    half = {part: {key: t.half().contiguous() for key, t in tensors.items()} for part, tensors in parts.items()}
    return half | {"control": {EMBEDDINGS: trained["table"].contiguous()}}


def write_graphs(out: Path) -> None:
    """Export the checkpoint in `out`, and put the graphs beside it; they compute in float32."""
    with TemporaryDirectory(dir=out.parent) as folder:
        made = Path(folder) / "bundle"
        options = Options(NANO, precision="fp32", form="whole")
        export_bundle(options, made, checkpoint=out / CHECKPOINT, family="matrix", torch_program=False)
        take_graphs(made, out)


if __name__ == "__main__":
    main()
