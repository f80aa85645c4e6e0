"""The cost model: graphs and formulas agree, torch's own counter agrees with both, and published times are met."""

import json
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from worldrt.benchmarks.cli import main
from worldrt.benchmarks.costs import cosmos, fit, matrix, opendwm
from worldrt.benchmarks.costs.cosmos import Clip
from worldrt.benchmarks.costs.gpus import GPUS, gpu
from worldrt.benchmarks.costs.predict import LEVERS, Setting, levers, predict
from worldrt.benchmarks.costs.published import DENSE_S, SCALING, SPARSE_CASES, SPARSE_S, times_s
from worldrt.benchmarks.costs.runs import run_work
from worldrt.benchmarks.costs.text import clip as clip_encoder
from worldrt.benchmarks.costs.text import encoder
from worldrt.benchmarks.costs.walk import walk_component
from worldrt.benchmarks.costs.work import Work
from worldrt.benchmarks.costs.world import predict_world
from worldrt.benchmarks.gpu import rates
from worldrt.benchmarks.gpu.base import Setup
from worldrt.benchmarks.machine import identify
from worldrt.benchmarks.results import report, write
from worldrt.engine.bundle import load_bundle
from worldrt.engine.errors import InputError
from worldrt.export.families.cosmos.variants import variant
from worldrt.export.families.matrix.variants import variant as matrix_variant
from worldrt.export.families.opendwm.variants import variant as opendwm_variant

TOLERANCE = 1e-3


def agree(graphs, formulas):
    """Every figure of every graph, within 0.1 %."""
    assert set(graphs) == set(formulas)
    for name in graphs:
        for field, value in vars(graphs[name]).items():
            assert getattr(formulas[name], field) == pytest.approx(value, rel=TOLERANCE), (name, field)
        assert graphs[name].flops > 0 and graphs[name].weight_bytes > 0 and graphs[name].edge_bytes > 0


def counted(module, *given):
    """FLOPs by torch's counter; nothing is computed on the meta device."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(*given)
    return counter.get_total_flops()


def test_graphs_and_formulas_agree_on_every_component_of_nano(nano_bundle):
    bundle = load_bundle(nano_bundle)
    v, parts = variant("nano", "video2world"), bundle.manifest.components()
    axes = {"batch": 2, "frames": 5, "rows": 5, "columns": 8, "text": 512}
    for task, clip in (("video2world", Clip(5, 5, 8, batch=2)), ("text2image", Clip(1, 5, 8, batch=2))):
        dit = variant("nano", task).dit
        agree(
            walk_component(bundle, parts[task], axes | {"frames": clip.frames}),
            cosmos.denoiser(dit, clip, 4),
        )
    agree(walk_component(bundle, parts["text"], axes), {"encode": encoder(v.t5, 512, 4, batch=2)})
    agree(
        walk_component(bundle, parts["vae"], axes | {"rows": 10, "columns": 16}),
        cosmos.vae_steps(v.vae, 10, 16, 4, batch=2),
    )


def test_the_block_form_computes_what_the_whole_form_does():
    run = run_work("14B")
    parts = cosmos.denoiser(run.dit, run.clip, 2, "block")
    assert sum(parts.values(), Work()).flops == pytest.approx(run.evaluation.flops, rel=TOLERANCE)
    assert parts["block"].edge_bytes > 35 * 8 * run.hidden_bytes, "Q, K, V and hidden states go in and come out"


@pytest.mark.slow  # exports blocks of the true shape
def test_graphs_and_formulas_agree_on_the_block_form_of_14b_at_720p(tmp_path):
    from worldrt.benchmarks import checkpoints
    from worldrt.export.plan import Options
    from worldrt.export.run import export_bundle

    checkpoints.make("14B", tmp_path / "weights", "video2world")
    options = Options("14B", task="video2world", components=("video2world",), form="block")
    export_bundle(options, tmp_path / "bundle", checkpoint=tmp_path / "weights", verified=False, torch_program=False)
    bundle = load_bundle(tmp_path / "bundle")
    dit, clip = variant("14B", "video2world").dit, Clip(24, 44, 80)
    axes = {"batch": 1, "frames": 24, "context_frames": 24, "rows": 44, "columns": 80, "tokens": 44 * 80, "text": 512}
    found = walk_component(bundle, bundle.manifest.denoisers["video2world"], axes)
    agree(found, cosmos.denoiser(dit, clip, 2, "block"))
    shard = axes | {"frames": 3}
    agree(
        walk_component(bundle, bundle.manifest.denoisers["video2world"], shard),
        cosmos.denoiser(dit, Clip(3, 44, 80, context=24), 2, "block"),
    )


@pytest.mark.parametrize("size, resolution", [("2B", "480"), ("14B", "720")])
def test_torch_counts_the_same_flops_for_the_true_transformer(size, resolution):
    from worldrt.export.families.cosmos.dit import DiT

    run = run_work(size, resolution)
    clip, dit = run.clip, replace(run.dit, blocks=2)
    x = torch.empty(1, 16, clip.frames, 2 * clip.rows, 2 * clip.columns, device="meta")
    frames = torch.empty(1, clip.frames, device="meta")
    text = torch.empty(1, 512, dit.text_width, device="meta")
    with torch.device("meta"):
        flops = counted(DiT(dit), x, frames, text, frames[0], frames)
    assert cosmos.denoiser(dit, clip, 2)["denoise"].flops == pytest.approx(flops, rel=TOLERANCE)


def test_torch_counts_the_same_flops_for_the_true_vae():
    from worldrt.export.families.cosmos.vae import DecodeStep, EncodeStep

    v, (rows, columns) = variant("2B", "video2world"), (54, 96)
    formulas = cosmos.vae_steps(v.vae, rows, columns, 2)
    with torch.device("meta"):
        decode, encode = DecodeStep(v.vae), EncodeStep(v.vae)
        latent = torch.empty(1, 16, 1, rows, columns)
        first, later = (torch.empty(1, 3, n, 8 * rows, 8 * columns) for n in (1, 4))
        caches, kept = decode(latent)[1:], encode(first)[1:]
        assert formulas["decode_first"].flops == pytest.approx(counted(decode, latent), rel=TOLERANCE)
        assert formulas["decode_next"].flops == pytest.approx(counted(decode, latent, *caches), rel=TOLERANCE)
        assert formulas["encode_first"].flops == pytest.approx(counted(encode, first), rel=TOLERANCE)
        assert formulas["encode_next"].flops == pytest.approx(counted(encode, later, *kept), rel=TOLERANCE)
    assert cosmos.vae_cache_bytes(v.vae, rows, columns, 4) == sum(cache.nbytes for cache in caches)
    parameters = sum(p.numel() for p in encode.parameters())
    assert formulas["encode_next"].weight_bytes == 2 * parameters


def test_torch_counts_the_same_flops_for_the_matrix():
    from worldrt.export.families.matrix.dit import DiT
    from worldrt.export.families.matrix.vae import DecodeChunk, EncodeChunk

    v = matrix_variant("matrix-stage4")
    v = replace(v, dit=replace(v.dit, blocks=3, control_start=1, control_end=3), vae=replace(v.vae, layers=1))
    with torch.device("meta"):
        dit, decode, encode = DiT(v.dit), DecodeChunk(v.vae), EncodeChunk(v.vae)
        x, levels = torch.empty(1, 16, 5, 20, 32), torch.empty(1, 5)
        text, control = torch.empty(1, v.t5.tokens, v.dit.text_width), torch.empty(1, 5, v.dit.control_width)
        flops = counted(dit, x, levels, text, control, levels[0])
        latent, video = torch.empty(1, 16, 2, 20, 32), torch.empty(1, 3, 9, 160, 256)
        decoded, encoded = counted(decode, latent), counted(encode, video)
    work = matrix.denoiser(v.dit, Clip(5, 10, 16, text=v.t5.tokens), 4)
    assert work.flops == pytest.approx(flops, rel=TOLERANCE)
    assert work.weight_bytes == pytest.approx(4 * sum(p.numel() for p in dit.parameters()), rel=TOLERANCE)
    assert matrix.decode(v.vae, 2, 20, 32, 4, True).flops == pytest.approx(decoded, rel=TOLERANCE)
    assert matrix.encode(v.vae, 9, 20, 32, 4, True).flops == pytest.approx(encoded, rel=TOLERANCE)


@pytest.mark.slow  # exports all of nano-matrix
def test_graphs_and_formulas_agree_on_the_matrix(tmp_path):
    from worldrt.export.plan import Options
    from worldrt.export.run import export_bundle

    export_bundle(Options("nano-matrix"), tmp_path / "bundle", family="matrix", verified=False, torch_program=False)
    bundle, v = load_bundle(tmp_path / "bundle"), matrix_variant("nano-matrix")
    parts = bundle.manifest.components()
    axes = {"batch": 1, "frames": 5, "rows": 5, "columns": 8, "text": 64}
    agree(
        walk_component(bundle, parts["world"], axes),
        {"denoise": matrix.denoiser(v.dit, Clip(5, 5, 8, text=64), 4)},
    )
    agree(walk_component(bundle, parts["text"], axes | {"text": 20}), {"encode": encoder(v.t5, 20, 4, padded=64)})
    found = walk_component(bundle, parts["vae"], axes | {"rows": 10, "columns": 16})
    chosen = {name: found[name] for name in ("encode_first", "encode_next", "decode_first", "decode_next_2")}
    agree(
        chosen,
        {
            "encode_first": matrix.encode(v.vae, 9, 10, 16, 4, True),
            "encode_next": matrix.encode(v.vae, 8, 10, 16, 4, False),
            "decode_first": matrix.decode(v.vae, 2, 10, 16, 4, True),
            "decode_next_2": matrix.decode(v.vae, 2, 10, 16, 4, False),
        },
    )


@pytest.mark.slow  # exports all of nano-opendwm
def test_graphs_and_formulas_agree_on_opendwm(opendwm_bundle):
    bundle, v = load_bundle(opendwm_bundle), opendwm_variant("nano-opendwm")
    parts, call = bundle.manifest.components(), opendwm.Views(6, 3, 4, 7, text=48, batch=2)
    axes = {"batch": 2, "frames": 6, "text": 48}
    formulas = {"denoise": opendwm.denoiser(v.dit, call, 4), "layout": opendwm.layout(v.dit, call, 4)}
    agree(walk_component(bundle, parts["world"], axes), formulas)
    formulas = {"encode": opendwm.encode(v.vae, 3, 8, 14, 4), "decode": opendwm.decode(v.vae, 3, 8, 14, 4)}
    agree(walk_component(bundle, parts["vae"], {"batch": 3, "rows": 8, "columns": 14}), formulas)
    axes = {"batch": 1, "text": 20}
    agree(walk_component(bundle, parts["text"], axes), {"encode": encoder(v.t5, 20, 4, padded=24)})
    for name, config in (("clip", v.clip), ("clip2", v.clip2)):
        agree(walk_component(bundle, parts[name], axes), {"encode": clip_encoder(config, 20, 4)})


def test_torch_counts_the_same_flops_for_the_true_opendwm():
    from worldrt.export.families.opendwm.adapter import ImageAdapter
    from worldrt.export.families.opendwm.dit import DiT
    from worldrt.export.families.opendwm.vae import Decode, Encode

    v = opendwm_variant("opendwm")
    dit = replace(v.dit, layers=3, dual=(0, 1), temporal=(0, 2), crossview=(1,), stages=2)
    call = opendwm.Views(6, 3, 11, 19, text=154)
    pictures = (1, call.frames, call.views)
    with torch.device("meta"):
        network, adapter = DiT(dit), ImageAdapter(dit)
        x, text = torch.empty(1, 16, 6, 3, 22, 38), torch.empty(*pictures, call.text, dit.text_width)
        pooled, camera = torch.empty(*pictures, dit.pooled_width), torch.empty(*pictures, 11)
        residual = torch.empty(1, 6, dit.stages, 3, call.tokens, dit.width)
        flops = counted(
            network, x, torch.empty(*pictures), text, pooled, camera, residual, torch.empty(6), torch.empty(3)
        )
        adapted = counted(adapter, torch.empty(1, 3, dit.image_channels, 176, 304))
        encoded = counted(Encode(v.vae), torch.empty(3, 3, 1, 176, 304))
        decoded = counted(Decode(v.vae), torch.empty(3, 16, 1, 22, 38))
    work = opendwm.denoiser(dit, call, 4)
    assert work.flops == pytest.approx(flops, rel=TOLERANCE)
    assert work.weight_bytes == 4 * sum(p.numel() for p in network.parameters())
    assert opendwm.layout(dit, call, 4).flops == pytest.approx(adapted, rel=TOLERANCE)
    assert opendwm.encode(v.vae, 3, 22, 38, 4).flops == pytest.approx(encoded, rel=TOLERANCE)
    assert opendwm.decode(v.vae, 3, 22, 38, 4).flops == pytest.approx(decoded, rel=TOLERANCE)


@pytest.mark.slow  # exports the sparse transformer of nano
def test_graphs_and_formulas_agree_on_neighbourhood_attention(tmp_path):
    from worldrt.export.plan import Options
    from worldrt.export.run import export_bundle

    options = Options("nano", task="video2world", components=("video2world",), natten=True)
    export_bundle(options, tmp_path / "bundle", verified=False, torch_program=False)
    bundle, v = load_bundle(tmp_path / "bundle"), variant("nano", "video2world").sparse("720")
    axes = {"batch": 2, "frames": 5, "rows": 5, "columns": 8, "text": 512}
    found = walk_component(bundle, bundle.manifest.denoisers["video2world"], axes)
    agree(found, cosmos.denoiser(v.dit, Clip(5, 5, 8, batch=2), 4))
    dense = cosmos.denoiser(variant("nano", "video2world").dit, Clip(5, 5, 8, batch=2), 4)
    assert found["denoise"].attention < dense["denoise"].attention


def test_torch_counts_the_same_flops_for_neighbourhood_attention():
    from worldrt.export.families.cosmos.dit import DiT

    dit = variant("2B", "video2world").sparse("720").dit
    assert dit.windows is not None
    few = replace(dit, blocks=4, windows=replace(dit.windows, blocks=(*dit.windows.blocks[1:4], None)))
    clip = Clip(3, *dit.windows.grid)
    with torch.device("meta"):
        x, frames = torch.empty(1, 16, 3, 2 * clip.rows, 2 * clip.columns), torch.empty(1, 3)
        flops = counted(DiT(few), x, frames, torch.empty(1, 512, dit.text_width), frames[0], frames)
    assert cosmos.denoiser(few, clip, 2)["denoise"].flops == pytest.approx(flops, rel=TOLERANCE)


def test_published_times_are_met_within_a_tenth_by_two_rates_of_each_gpu():
    errors = fit.errors()
    assert len(errors) == sum(len(times_s(name)) for name in DENSE_S) == 28
    assert max(map(abs, errors.values())) < 0.10
    for name, found in fit.fitted().items():
        assert 0.1 < found.gemm / gpu(name).peak < 1 and 0.1 < found.attention / gpu(name).peak < 1


def test_sparse_times_that_took_no_part_in_the_fit_are_near():
    known = fit.fitted()
    for name in ("B200", "H200 SXM", "H100 SXM"):
        for case, published in zip(SPARSE_CASES, SPARSE_S[name], strict=True):
            run = run_work(case.size, case.resolution, case.fps, sparse=True)
            assert fit.seconds(run, gpu(name), known[name]) == pytest.approx(published, rel=0.2)


def test_published_scaling_of_the_official_code_is_predicted():
    one, eight = (predict(Setting("2B", num_gpus=count), gpu("h100")).total_s for count in (1, 8))
    assert one / eight / 8 == pytest.approx(SCALING["2B", 8][1][0] / 100, rel=0.1)
    whole = Setting("14B", num_gpus=8, cfg_parallel=True, vae_parallel=True)
    best = predict(Setting("14B"), gpu("h100")).total_s / predict(whole, gpu("h100")).total_s / 8
    assert best >= 0.9 * SCALING["14B", 8][1][0] / 100, "what others reach is within reach"


def test_parameters_are_those_that_the_models_are_named_after():
    assert run_work("2B").evaluation.weight_bytes / 2 == pytest.approx(1.956e9, rel=1e-3)
    assert run_work("14B").evaluation.weight_bytes / 2 == pytest.approx(14.27e9, rel=1e-3)
    assert run_work("2B").clip.tokens == 84_480 and run_work("2B", "480").clip.tokens == 31_104


def test_dividing_work_never_adds_and_communication_is_counted():
    alone = predict(Setting("14B"), gpu("h200"))
    eight = predict(Setting("14B", num_gpus=8), gpu("h200"))
    both = predict(Setting("14B", num_gpus=8, cfg_parallel=True), gpu("h200"))
    assert alone.received_bytes == {"K and V": 0, "guidance": 0} and alone.seconds["communication"] == 0
    run = run_work("14B")
    assert eight.received_bytes["K and V"] == 72 * 36 * 2 * 84_480 * 5120 * 2 * 7 / 8
    assert both.received_bytes["K and V"] == 36 * 36 * 2 * 84_480 * 5120 * 2 * 3 / 4
    assert both.received_bytes["guidance"] == 36 * run.latent_bytes / 4
    assert 4 < alone.total_s / eight.total_s < alone.total_s / both.total_s < 8
    assert eight.memory_bytes["transformer activations"] < alone.memory_bytes["transformer activations"]
    assert alone.bound == "attention" and alone.resident_bytes < 141e9


def test_levers_bring_what_arithmetic_allows():
    for device in (gpu("h200"), gpu("b200")):
        made = levers(Setting("14B"), device)
        assert set(made) == set(LEVERS)
        base = made["as published: one GPU, bfloat16"]
        assert base is not None and all(p is not None and p.total_s <= base.total_s for p in made.values())
        two = made["guidance on two GPUs"]
        assert two is not None and 1.7 < base.total_s / two.total_s < 2
    assert levers(Setting("2B", "480"), gpu("h200"))["neighbourhood attention (720p only)"] is None


def test_a_gpu_is_found_by_the_beginning_of_its_name():
    assert gpu("h200").name == "H200 SXM" and gpu("H200-nvl").name == "H200 NVL" and gpu("b200") in GPUS
    with pytest.raises(InputError, match="there are B200"):
        gpu("quantum")


def test_a_prediction_is_printed_and_says_what_it_assumes(capsys):
    assert main(["predict", "--model", "14B", "--gpu", "h200", "--num_gpus", "8", "--cfg_parallel"]) == 0
    said = capsys.readouterr().out
    assert "8 x H200 SXM" in said and "bound by: attention" in said and "Assumed:" in said and "all-gather" not in said
    assert main(["predict", "--gemm_tflops", "790", "--attention_tflops", "790", "--fp8", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["tokens"] == 84_480 and data["evaluations"] == 72 and data["gemm"] == 790e12
    assert data["seconds"]["attention"] == pytest.approx(150.1, abs=0.2) and data["total_s"] > 150
    assert data["seconds"]["linear layers"] == pytest.approx(72 * 277.97e12 / (1.9 * 790e12), rel=1e-3)


def test_a_world_is_predicted_in_frames_per_second(capsys):
    alone = predict_world("matrix-stage4", gpu("h200"))
    four = predict_world("matrix-stage4", gpu("h200"), num_gpus=4)
    assert (alone.latents, alone.rows, alone.evaluations, alone.groups) == (1, 1, 1, 4)
    assert alone.tokens == 5 * 30 * 45, "a clean frame, four groups of one, 480 x 720 pixels"
    assert alone.fps < four.fps < 4 * alone.fps and four.latency_s < alone.latency_s
    assert alone.fps == pytest.approx(4 / alone.total_s)
    third = predict_world("matrix-stage3", gpu("h200"))
    assert (third.latents, third.rows, third.evaluations, third.tokens) == (4, 5, 10, 17 * 30 * 45)
    assert main(["predict", "--model", "matrix-stage4", "--num_gpus", "2"]) == 0
    assert "frames per second" in capsys.readouterr().out
    assert main(["predict", "--model", "matrix-stage3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fps"] == pytest.approx(third.fps)
    with pytest.raises(InputError, match="clips of one length"):
        predict_world("matrix-stage2", gpu("h200"))


def test_opendwm_is_predicted_as_a_queue_of_frames_of_all_views():
    world = predict_world("opendwm", gpu("h200"))
    assert (world.latents, world.frames, world.rows, world.evaluations, world.groups) == (1, 1, 4, 8, 6)
    assert world.tokens == 6 * 3 * 11 * 19, "six frames in flight, three views of 304 x 176 pixels"
    assert world.fps == pytest.approx(1 / world.total_s) and 1 < world.fps < 30
    with pytest.raises(InputError, match="--num_gpus"):
        predict_world("opendwm", gpu("h200"), num_gpus=2)


def test_measured_rates_take_the_place_of_fitted_ones(tmp_path, capsys):
    made, samples = next(rates.run(Setup("cpu", 2, tmp_path)))
    assert set(samples) == {f"{name}_s" for name in rates.CASES} and all(len(v) == 2 for v in samples.values())
    assert [row[0] for row in made[0].rows] == list(rates.CASES), "none failed"
    given = replace(made[0], rows=tuple((row[0], 1.0, 1.0, 1.0, 500.0 + i, 1.0) for i, row in enumerate(made[0].rows)))
    path = write(report("gpu", identify(["gpu"]), {}, [given]), tmp_path)
    assert main(["predict", "--rates", str(path), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["gemm"], data["attention"]) == (500e12, 501e12)
    assert data["seconds"]["VAE decode"] == pytest.approx(run_work("2B").decode.flops / 502e12)
    empty = write(report("cpu", identify(["cpu"]), {}, []), tmp_path)
    assert main(["predict", "--rates", str(empty)]) == 2
    assert "holds none; run trt-bench gpu --parts rates" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--num_gpus", "3", "--cfg_parallel"], "an even number of GPUs, got 3"),
        (["--cfg_parallel", "--num_gpus", "2", "--no_guidance"], "needs guidance"),
        (["--natten", "--resolution", "480"], "sparse weights for --resolution 720 only"),
        (["--gpu", "abacus"], "--gpu abacus: there are B200"),
        (["--steps", "0"], "expected 1 or more"),
    ],
)
def test_what_cannot_be_run_is_not_predicted(flags, words, capsys):
    assert main(["predict", *flags]) == 2
    assert words in capsys.readouterr().err
