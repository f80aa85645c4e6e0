"""Cosmos-Predict2 for the exporter: where the components of a model lie, their graphs, their manifest entries."""

from __future__ import annotations

from typing import Any, cast

from worldrt.engine.bundle import Condition, Denoiser, Guidance, Sampler, Sparse, Text, Vae
from worldrt.engine.errors import InputError
from worldrt.export.checkpoint import Probe, Wanted
from worldrt.export.families.cosmos.graphs import block_instances, denoiser_graphs, text_graphs, vae_graphs
from worldrt.export.families.cosmos.nano import copy_trained, make_checkpoint
from worldrt.export.families.cosmos.segments import segments
from worldrt.export.families.cosmos.variants import VAE_SCALE, Variant, variants
from worldrt.export.families.cosmos.weights import dit_keys, vae_keys
from worldrt.export.modules.keys import KeyMap, text_keys
from worldrt.export.plan import Built, File, Model, Options, Part, check_cut

NANO = "nano"
_NO_GAIN = "video2world: windows gain nothing on the 40 tokens of nano's frames; its sparse form is to try things out"
FRAME_BOUND = ("position", "row", "level", "mask", "clean")
"""Inputs that hold one entry per latent frame, and travel with it."""


def model(options: Options) -> Model:
    """The parts of a model. Raises `InputError` where there is no such model, task, resolution or frame rate."""
    chosen = [v for v in variants() if v.size == options.model and options.task in ("all", v.task)]
    if not chosen:
        known = ", ".join(f"{v.size} {v.task}" for v in variants())
        raise InputError(f"no Cosmos-Predict2 model '{options.model} {options.task}'; there are: {known}")
    if options.distilled:
        chosen = [v.distilled() if v.task == "text2image" or len(chosen) == 1 else v for v in chosen]
    check_cut(options)
    if options.natten:
        chosen = _sparse(chosen, options)
    for v in chosen:
        v.pixel_size(resolution=options.resolution)
        v.clip_latents(options.fps)
    parts = (*(_denoiser(v, options) for v in chosen), _vae(chosen, options), _text(chosen))
    return Model("cosmos", options.model, parts, *((_make_nano, copy_trained) if options.model == NANO else ()))


def _sparse(chosen: list[Variant], options: Options) -> list[Variant]:
    """The same with the sparse form of the video model. Raises `InputError` where there is none."""
    if options.task == "text2image":
        raise InputError("--natten: it is about video2world; leave it out, or give another --task")
    if options.quantize not in (None, "int8"):
        raise InputError(f"--natten: a sparse denoiser is not quantised to {options.quantize}; leave one of them out")
    made = [v.sparse(options.resolution) if v.task == "video2world" else v for v in chosen]
    return made if any(v.dit.windows for v in made) else [v.sparse(options.resolution) for v in chosen]


def _make_nano(folder: Any, seed: int) -> None:
    make_checkpoint(folder, seed)


def _folders(v: Variant) -> tuple[str, ...]:
    """Where a pipeline may lie below a checkpoint root, as path prefixes."""
    hub = f"models--{v.repository.replace('/', '--')}/snapshots/*/"
    return ("", f"{v.task}/", f"{v.repository.rpartition('/')[2]}/", f"{v.repository}/", hub, f"hub/{hub}")


def _denoiser(v: Variant, options: Options) -> Part:
    files = v.files(options.resolution, options.fps)
    name = files.dit.rpartition("/")[2]
    official = (name, name.replace(".pt", ".safetensors"))
    # pipelines in diffusers form exist of one resolution and frame rate, and have no averaged weights
    is_default = _single(v) or (options.resolution, options.fps) == ("720", 16)
    special = options.load_ema or v.is_distilled or v.dit.windows is not None
    folders = ("transformer",) if is_default and not special else ()
    places = [f"{where}{what}" for where in _folders(v) for what in (*folders, *official)]
    if v.size == NANO:
        places = [v.task]
    shape = (v.dit.width, v.dit.patch_channels * 4)

    def describe(built: Built) -> Denoiser:
        inputs = built.graphs["denoise" if built.form == "whole" else "embed"].inputs
        return Denoiser(
            **_common(built),
            form=built.form,
            blocks=v.dit.blocks,
            conditions={
                spec.name: Condition("frame" if spec.name in FRAME_BOUND else "clip")
                for spec in inputs
                if spec.name != "x"
            }
            | {"text": Condition("clip")},
            sampler=Sampler(v.sampler.kind, v.sampler.steps, v.sampler.sigma_max, v.sampler.sigma_min, v.sampler.order),
            guidance=Guidance("delta", v.guidance),
            sizes=_of_file(v, options),
            frames={str(fps): 4 * (n - 1) + 1 for fps, n in _rates(v, options).items()},
            sparse=None if v.dit.windows is None else Sparse(v.dit.windows.grid, v.dit.windows.names()),
        )

    return Part(
        v.task,
        Wanted(v.task, tuple(places), _probes(dit_keys(), "stem.patch.weight", shape), _fetch(files.dit, v)),
        lambda form, dtype, key_format: denoiser_graphs(
            v.dit,
            form,
            cast(Any, dtype),
            cast(Any, key_format),
            cast(Any, options.rope_dtype),
            attention_cut=options.attention_cut,
        ),
        describe,
        task=True,
        segments=lambda source, dtype: segments(v.dit, dtype, cast(Any, options.rope_dtype), source),
        instances=block_instances(v.dit),
        note=_NO_GAIN if v.size == NANO and v.dit.windows is not None else None,
    )


def _of_file(v: Variant, options: Options) -> dict[str, Any]:
    """Official video weights are of one resolution."""
    return {k: dict(sizes) for k, sizes in v.sizes.items() if k in ("any", options.resolution)}


def _rates(v: Variant, options: Options) -> dict[int, int]:
    """Official video weights are of one frame rate."""
    return {fps: n for fps, n in v.latent_frames.items() if _single(v) or fps == options.fps}


def _single(v: Variant) -> bool:
    """Whether one set of weights serves all that the model does."""
    return "any" in v.sizes


def _vae(chosen: list[Variant], options: Options) -> Part:
    v = chosen[0]
    places = [f"{where}{what}" for u in chosen for where in _folders(u) for what in ("vae", "tokenizer/tokenizer.pth")]
    channels = v.vae.latent_channels

    def describe(built: Built) -> Vae:
        return Vae(
            **_common(built),
            channels=channels,
            spatial=VAE_SCALE,
            temporal=2 ** sum(v.vae.temporal),
            latent_mean=v.vae.latent_mean,
            latent_std=v.vae.latent_std,
            pixel_format=cast(Any, options.pixel_format),
        )

    return Part(
        "vae",
        Wanted(
            "vae",
            tuple(dict.fromkeys(places)),
            _probes(vae_keys(), "post_quant.weight", (channels, channels, 1, 1, 1)),
            f"vae/ or tokenizer/tokenizer.pth of https://huggingface.co/{v.repository}",
        ),
        lambda form, dtype, key_format: vae_graphs(
            v.vae, cast(Any, dtype), cast(Any, options.pixel_format), cast(Any, key_format)
        ),
        describe,
    )


def _text(chosen: list[Variant]) -> Part:
    v = chosen[0]
    repository = v.files().text_repository
    hub = f"models--{repository.replace('/', '--')}/snapshots/*"
    own = (repository, repository.rpartition("/")[2], hub, f"hub/{hub}")
    places = [f"{where}text_encoder" for u in chosen for where in _folders(u)]
    tokenizers = [f"{where}tokenizer/tokenizer.json" for u in chosen for where in _folders(u)]
    source = f"https://huggingface.co/{v.repository}"

    def describe(built: Built) -> Text:
        return Text(**_common(built), tokenizer="text/tokenizer.json", max_tokens=v.t5.tokens, width=v.t5.width)

    return Part(
        "text",
        Wanted(
            "text",
            tuple(dict.fromkeys((*places, *own))),
            _probes(text_keys(v.t5.gated), "embedding.weight", (v.t5.vocabulary, v.t5.width)),
            f"text_encoder/ of {source}, or https://huggingface.co/{repository}",
        ),
        lambda form, dtype, key_format: text_graphs(v.t5, cast(Any, dtype)),
        describe,
        files=(
            File(
                "text/tokenizer.json",
                tuple(dict.fromkeys((*tokenizers, *(f"{place}/tokenizer.json" for place in own)))),
                f"tokenizer/tokenizer.json of {source}",
            ),
        ),
    )


def _probes(keys: KeyMap, name: str, shape: tuple[int, ...]) -> dict[str, Probe]:
    return {form: Probe(keys.key(name, cast(Any, form)), shape) for form in ("official", "diffusers")}


def _fetch(file: str, v: Variant) -> str:
    name = file.rpartition("/")[2]
    if v.dit.windows is None:
        name = f"{name} or transformer/"
    return f"{name} of https://huggingface.co/{v.repository}, and give the folder as --checkpoint"


def _common(built: Built) -> dict[str, Any]:
    return {"precision": built.precision, "files": built.files, "graphs": built.graphs}
