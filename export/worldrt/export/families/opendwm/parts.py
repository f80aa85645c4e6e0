"""OpenDWM for the exporter: where the components of a model lie, their graphs, their manifest entries."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from worldrt.engine.bundle import Condition, Denoiser, Guidance, Layout, Place, Sampler, Text, Vae
from worldrt.engine.errors import InputError
from worldrt.export.checkpoint import NotFoundError, Probe, Wanted, find_file
from worldrt.export.families.opendwm.blocks import block_graphs, chain_of, instances_of
from worldrt.export.families.opendwm.config import configured
from worldrt.export.families.opendwm.graphs import INPUTS, View, denoiser_graphs, vae_graphs
from worldrt.export.families.opendwm.nano import FILE, make_checkpoint
from worldrt.export.families.opendwm.segments import Segments
from worldrt.export.families.opendwm.variants import (
    BASE_REPOSITORY,
    NANO,
    PATCH,
    REPOSITORY,
    VAE_SCALE,
    Variant,
    variant,
)
from worldrt.export.modules import clip_tokenizer
from worldrt.export.modules.clip import CLIPConfig, clip_graph
from worldrt.export.modules.keys import text_keys
from worldrt.export.modules.padded import encode_graph
from worldrt.export.plan import Built, File, Model, Options, Part

TASK = "world"
IMAGES = ("box", "map")
BINDS = {"position": "constant", "view": "constant"}
"""Positions are those of slots of the window: they stay when frames move on. All else goes with its frame."""
TRAINING_STEPS = 1000.0


def model(options: Options) -> Model:
    """The parts of a model. Raises `InputError` where there is no such model, or an option is not about it."""
    v = variant(options.model)
    if options.model_config is not None:
        v = configured(v, options.model_config)
    if options.task not in ("all", TASK):
        raise InputError(f"--task {options.task}: {v.name} has one task, {TASK}; leave it out")
    for name in ("natten", "distilled", "load_ema", "quantize"):
        if getattr(options, name):
            raise InputError(f"--{name}: there is none of {v.name}; leave it out")
    clips = [_clip(v, "clip", "", v.clip, 0), _clip(v, "clip2", "_2", v.clip2, v.clip.width)]
    parts = (_denoiser(v), _vae(v, options), _t5(v), *clips)
    return Model("opendwm", v.name, parts, _make_nano if v.name == NANO else None)


def _make_nano(folder: Path, seed: int) -> None:
    make_checkpoint(folder, seed)


def _folders(v: Variant) -> tuple[str, ...]:
    """Where the folder of Stable Diffusion 3.5 may lie below a checkpoint root, as path prefixes."""
    hub = f"models--{BASE_REPOSITORY.replace('/', '--')}/snapshots/*/"
    name = BASE_REPOSITORY.rpartition("/")[2]
    return ("",) if v.name == NANO else ("", f"{name}/", f"{BASE_REPOSITORY}/", hub, f"hub/{hub}")


def _fetch(what: str) -> str:
    return f"{what} of https://huggingface.co/{BASE_REPOSITORY}, and give the folder as --checkpoint"


def _denoiser(v: Variant) -> Part:
    dit, view = v.dit, View.of(v)
    lowest = v.flow_shift / TRAINING_STEPS / (1 + (v.flow_shift - 1) / TRAINING_STEPS)
    lowest = v.flow_shift * lowest / (1 + (v.flow_shift - 1) * lowest)  # it is moved twice, as in training

    def describe(built: Built) -> Denoiser:
        taken = {spec.name for graph in built.graphs.values() for spec in graph.inputs}
        inputs = [name for name in INPUTS if name in taken and name != "x"]
        chain = chain_of(dit) if built.form == "block" else ()
        return Denoiser(
            **_common(built),
            form=built.form,
            blocks=len(chain) + 1 if chain else dit.layers,
            conditions={name: Condition(cast(Any, BINDS.get(name, "frame"))) for name in inputs},
            chain=chain,
            sampler=Sampler("flow_euler", v.steps, TRAINING_STEPS, lowest * TRAINING_STEPS, shift=v.flow_shift),
            guidance=Guidance("classic", v.guidance),
            sizes={"any": {"16:9": v.size_px}},
            frames={str(v.fps): v.stream.groups},
            size_multiple_px=PATCH * VAE_SCALE,
            stream=v.stream,
            layout=Layout(IMAGES, v.uncond_image, v.views, v.text_interval),
        )

    names = [f"*{name}" for name in ("ctsd*.pth", "ctsd*.safetensors")]
    return Part(
        TASK,
        Wanted(
            TASK,
            (FILE,) if v.name == NANO else (*names, *(f"OpenDWM/{name}" for name in names)),
            {"official": Probe("view_embedding.linear_2.weight", (dit.width, dit.width))},
            f"a checkpoint of CTSD 3.5 from https://github.com/{REPOSITORY}; give it as --dit_path with --task {TASK}",
        ),
        lambda form, dtype, key_format: (denoiser_graphs if form == "whole" else block_graphs)(dit, view, dtype),
        describe,
        task=True,
        instances=instances_of(dit),
        segments=lambda source, dtype: Segments(dit, view, dtype).of(source),
    )


def _vae(v: Variant, options: Options) -> Part:
    latent = v.vae.latent_channels

    def describe(built: Built) -> Vae:
        return Vae(
            **_common(built),
            channels=latent,
            spatial=VAE_SCALE,
            temporal=1,
            latent_mean=(v.vae.shift,) * latent,
            latent_std=(1 / v.vae.scaling,) * latent,
            pixel_format=cast(Any, options.pixel_format),
        )

    return Part(
        "vae",
        Wanted(
            "vae",
            tuple(f"{where}vae" for where in _folders(v)),
            {"diffusers": Probe("decoder.conv_in.weight", (v.vae.widths[-1], latent, 3, 3))},
            _fetch("vae/"),
        ),
        lambda form, dtype, key_format: vae_graphs(v.vae, dtype, cast(Any, options.pixel_format)),
        describe,
    )


def _t5(v: Variant) -> Part:
    probe = Probe(text_keys(v.t5.gated).key("embedding.weight", "diffusers"), (v.t5.vocabulary, v.t5.width))

    def describe(built: Built) -> Text:
        return _text(built, "text", v.t5.tokens, v.t5.width, Place(v.clip.tokens, 0))

    places = tuple(f"{where}tokenizer_3/tokenizer.json" for where in _folders(v))
    return Part(
        "text",
        Wanted(
            "text",
            tuple(f"{where}text_encoder_3" for where in _folders(v)),
            {"diffusers": probe},
            _fetch("text_encoder_3/"),
        ),
        lambda form, dtype, key_format: [encode_graph(v.t5, dtype)],
        describe,
        files=(File("text/tokenizer.json", places, _fetch("tokenizer_3/tokenizer.json")),),
    )


def _clip(v: Variant, name: str, suffix: str, config: CLIPConfig, channel: int) -> Part:
    """One of the two; their channels lie side by side."""
    key = "text_model.embeddings.token_embedding.weight"
    pooled = 0 if channel == 0 else v.clip.projection

    def describe(built: Built) -> Text:
        return _text(built, name, config.tokens, config.width, Place(0, channel, pooled))

    def tokenizer(root: Path, place: Path) -> None:
        folders = [f"{where}tokenizer{suffix}" for where in _folders(v)]
        _write_tokenizer(root, folders, place)

    return Part(
        name,
        Wanted(
            name,
            tuple(f"{where}text_encoder{suffix}" for where in _folders(v)),
            {"diffusers": Probe(key, (config.vocabulary, config.width))},
            _fetch(f"text_encoder{suffix}/"),
        ),
        lambda form, dtype, key_format: [clip_graph(config, dtype)],
        describe,
        files=(File(f"{name}/tokenizer.json", (), "", tokenizer),),
    )


def _write_tokenizer(root: Path, folders: Sequence[str], place: Path) -> None:
    """From one file where there is one, else from the two that older checkpoints have."""
    fetch = _fetch(f"{folders[0]}/")
    try:
        whole = find_file(root, "tokenizer.json", [f"{folder}/tokenizer.json" for folder in folders], fetch)
        place.write_bytes(whole.read_bytes())
    except NotFoundError:
        vocabulary = find_file(root, "vocab.json", [f"{folder}/vocab.json" for folder in folders], fetch)
        merges = find_file(root, "merges.txt", [f"{folder}/merges.txt" for folder in folders], fetch)
        clip_tokenizer.from_files(vocabulary, merges).save(str(place))


def _text(built: Built, name: str, tokens: int, width: int, place: Place) -> Text:
    return Text(
        **_common(built),
        tokenizer=f"{name}/tokenizer.json",
        max_tokens=tokens,
        width=width,
        unconditional="empty",
        too_long="cut",
        place=place,
    )


def _common(built: Built) -> dict[str, Any]:
    return {"precision": built.precision, "files": built.files, "graphs": built.graphs}
