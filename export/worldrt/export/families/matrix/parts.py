"""The Matrix for the exporter: where the components of a model lie, their graphs, their manifest entries."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from safetensors.numpy import save_file

from worldrt.engine.bundle import Condition, Control, Denoiser, Guidance, Sampler, Text, Vae
from worldrt.engine.errors import InputError
from worldrt.engine.tensors import Shape
from worldrt.export.checkpoint import NotFoundError, Probe, Wanted, find_file
from worldrt.export.families.matrix import control
from worldrt.export.families.matrix.graphs import CHUNKS, block_instances, denoiser_graphs, text_graphs, vae_graphs
from worldrt.export.families.matrix.nano import copy_trained, make_checkpoint
from worldrt.export.families.matrix.segments import Segments
from worldrt.export.families.matrix.variants import (
    CLIP_REPOSITORY,
    NANO,
    PATCH,
    REPOSITORY,
    TEMPORAL,
    VAE_SCALE,
    Variant,
    variant,
)
from worldrt.export.modules.keys import text_keys
from worldrt.export.plan import Built, File, Model, Options, Part, check_cut

TASK = "world"
BINDS = {"text": "clip", "last_level": "clip", "control": "frame", "level": "frame"}
SLOTS = ("position", "row")
"""Those of slots of the window: they stay when frames move on."""
_TEXT_REPOSITORY = "google-t5/t5-11b"


def model(options: Options) -> Model:
    """The parts of a model. Raises `InputError` where there is no such model, or an option is not about it."""
    v = variant(options.model)
    if options.task not in ("all", TASK):
        raise InputError(f"--task {options.task}: {v.name} has one task, {TASK}; leave it out")
    for name in ("natten", "distilled", "load_ema", "quantize"):
        if getattr(options, name):
            raise InputError(f"--{name}: there is none of {v.name}; leave it out")
    check_cut(options)
    if options.fold_levels and options.form != "whole":
        raise InputError("--fold_levels: blocks share one graph, so nothing can be folded into it; add --form whole")
    parts = (_denoiser(v, options), _vae(v, options), _text(v))
    return Model("matrix", v.name, parts, *((_make_nano, copy_trained) if v.name == NANO else ()))


def _make_nano(folder: Path, seed: int) -> None:
    make_checkpoint(folder, seed)


def _folders(v: Variant) -> tuple[str, ...]:
    """Where a stage may lie below a checkpoint root, as path prefixes."""
    hub = f"models--{REPOSITORY.replace('/', '--')}/snapshots/*/{v.stage}/"
    own = (f"{v.stage}/", f"TheMatrix/{v.stage}/", f"{REPOSITORY}/{v.stage}/", hub, f"hub/{hub}")
    return ("",) if v.name == NANO else ("", *own)


def _fetch(v: Variant, what: str) -> str:
    return f"{v.stage}/{what} of https://huggingface.co/{REPOSITORY}, and give the folder as --checkpoint"


def _denoiser(v: Variant, options: Options) -> Part:
    levels = v.fixed_levels() if options.fold_levels else None
    dit, width = v.dit, v.dit.width
    table = f"{TASK}/control.safetensors"

    def describe(built: Built) -> Denoiser:
        inputs = built.graphs["denoise" if built.form == "whole" else "embed"].inputs
        return Denoiser(
            **_common(built),
            form=built.form,
            blocks=dit.blocks,
            conditions={
                s.name: Condition("constant" if s.name in SLOTS else cast(Any, BINDS[s.name]))
                for s in inputs
                if s.name != "x"
            },
            sampler=Sampler(v.sampler.kind, v.sampler.steps, float(v.sampler.first), float(v.sampler.last)),
            guidance=Guidance("classic", v.guidance),
            sizes={"any": {v.aspect_ratio: v.size_px}},
            frames={"16": v.frames},
            size_multiple_px=PATCH * VAE_SCALE,
            diffusion=v.diffusion,
            levels=None if levels is None else tuple(map(float, levels)),
            stream=v.stream,
            control=Control(control.SYMBOLS, table, dit.control_width, dit.control_start, dit.control_end),
        )

    return Part(
        TASK,
        Wanted(
            TASK,
            tuple(f"{where}transformer" for where in _folders(v)),
            {"diffusers": Probe("control_blocks.0.attn1.to_q.weight", (width, width))},
            _fetch(v, "transformer/"),
        ),
        lambda form, dtype, key_format: denoiser_graphs(
            dit, v.diffusion, form, dtype, levels, attention_cut=options.attention_cut
        ),
        describe,
        task=True,
        segments=lambda source, dtype: Segments(dit, v.diffusion, dtype, levels).of(source),
        instances=block_instances(dit),
        files=(File(table, (), "", lambda root, place: _write_table(v, options, root, place)),),
    )


def _write_table(v: Variant, options: Options, root: Path, place: Path) -> None:
    """The embeddings of controls, from what the user gives of them."""
    shape: Shape = (len(control.SYMBOLS), v.dit.control_width)
    given = options.control_embeddings
    if given is None and options.control_sentences is not None:
        sentences = control.read_sentences(options.control_sentences)
        table = control.embed(sentences, options.clip or _clip(root))
        if table.shape != shape:
            raise InputError(f"--clip: expected a model of width {shape[1]}, got {table.shape[1]}; fetch {_CLIP_URL}")
    else:
        where = given or find_file(
            root,
            "the embeddings of controls",
            [f"{folder}control/{control.EMBEDDINGS}.safetensors" for folder in _folders(v)],
            "the official repository and give it as --control_sentences, or give a table as --control_embeddings: "
            f"float32 {list(shape)}",
        )
        table = control.read_embeddings(where, shape)
    save_file({control.EMBEDDINGS: table}, place)


_CLIP_URL = f"https://huggingface.co/{CLIP_REPOSITORY}"


def _clip(root: Path) -> Path:
    """The folder of the CLIP model below a checkpoint root."""
    hub = f"models--{CLIP_REPOSITORY.replace('/', '--')}/snapshots/*"
    places = (control.CLIP, CLIP_REPOSITORY, hub, f"hub/{hub}")
    try:
        return find_file(root, "CLIP", [f"{place}/config.json" for place in places], _CLIP_URL).parent
    except NotFoundError as error:
        raise NotFoundError(f"{error}, and say with --clip where it is") from error


def _vae(v: Variant, options: Options) -> Part:
    latent = v.vae.latent_channels

    def describe(built: Built) -> Vae:
        return Vae(
            **_common(built),
            channels=latent,
            spatial=VAE_SCALE,
            temporal=TEMPORAL,
            latent_mean=(0.0,) * latent,
            latent_std=(1 / v.vae.scaling,) * latent,
            pixel_format=cast(Any, options.pixel_format),
            chunks=CHUNKS,
        )

    shape = (v.vae.widths[-1], latent, 3, 3, 3)
    return Part(
        "vae",
        Wanted(
            "vae",
            tuple(f"{where}vae" for where in _folders(v)),
            {"diffusers": Probe("decoder.conv_in.conv.weight", shape)},
            _fetch(v, "vae/"),
        ),
        lambda form, dtype, key_format: vae_graphs(v.vae, dtype, cast(Any, options.pixel_format)),
        describe,
    )


def _text(v: Variant) -> Part:
    tokenizers = [f"{where}tokenizer/tokenizer.json" for where in _folders(v)]
    hub = f"models--{_TEXT_REPOSITORY.replace('/', '--')}/snapshots/*"
    same = [f"{place}/tokenizer.json" for place in (_TEXT_REPOSITORY, "t5-11b", hub, f"hub/{hub}")]

    def describe(built: Built) -> Text:
        return Text(
            **_common(built),
            tokenizer="text/tokenizer.json",
            max_tokens=v.t5.tokens,
            width=v.t5.width,
            unconditional="empty",
        )

    probe = Probe(text_keys(v.t5.gated).key("embedding.weight", "diffusers"), (v.t5.vocabulary, v.t5.width))
    return Part(
        "text",
        Wanted(
            "text",
            tuple(f"{where}text_encoder" for where in _folders(v)),
            {"diffusers": probe},
            _fetch(v, "text_encoder/"),
        ),
        lambda form, dtype, key_format: text_graphs(v.t5, dtype),
        describe,
        files=(
            File(
                "text/tokenizer.json",
                (*tokenizers, *same),
                f"tokenizer.json of https://huggingface.co/{_TEXT_REPOSITORY} (the same vocabulary) into tokenizer/",
            ),
        ),
    )


def _common(built: Built) -> dict[str, Any]:
    return {"precision": built.precision, "files": built.files, "graphs": built.graphs}
