"""Training of the nano world: its parts against what they claim, and each step of the way for two iterations."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan, CosmosTransformer3DModel
from safetensors import safe_open
from torch import nn
from transformers import T5EncoderModel

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "nano"))
import checkpoint
import encode
import muon
import one_net
import package
import scene
import team
import train_dit
import train_vae
import training

from worldrt.export.families.cosmos.block import CrossAttention
from worldrt.export.families.cosmos.dit import DiT
from worldrt.export.families.cosmos.nano import PARTS, make_checkpoint
from worldrt.export.families.cosmos.variants import variant


def test_updates_of_muon_are_near_orthogonal():
    for shape in ((8, 40), (40, 8)):
        values = torch.linalg.svdvals(muon.orthogonal(torch.randn(shape, generator=torch.Generator().manual_seed(1))))
        assert values.min() > 0.6 and values.max() < 1.3


def _toy(folder, steps, *, plain=True):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    run = training.Run(folder, network, steps=steps, rate=0.02, warmup=2)
    if plain:
        run.rate_at = lambda step: 0.02  # the same for runs of any length

    def loss_of(number):
        x = torch.randn(16, 4, generator=torch.Generator().manual_seed(number))
        loss = (network(x)[:, 0] - x.sum(1)).square().mean()
        return loss, {"mse": loss.item()}

    run.train(loss_of, log_every=2)
    return run


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path):
    whole = _toy(tmp_path / "whole", 6)
    _toy(tmp_path / "parts", 3)
    resumed = _toy(tmp_path / "parts", 6)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name
        assert torch.equal(whole.average[name], resumed.average[name]), name
    assert len((tmp_path / "whole" / "log.jsonl").read_text().splitlines()) == 3


def test_a_run_learns_and_its_rate_falls_to_nothing(tmp_path):
    run = _toy(tmp_path, 150, plain=False)
    first, *_, last = (json.loads(line)["mse"] for line in (tmp_path / "log.jsonl").read_text().splitlines())
    assert last < first / 5
    assert run.rate_at(0) < run.rate_at(60) == 0.02 and run.rate_at(149) < 0.001


def test_captions_in_other_words_say_the_same():
    for seed in range(30):
        there = scene.sample(seed, 5)
        for number in range(4):
            words = there.reworded(number)
            assert f" {there.colour} car" in words and words.endswith(".")
            assert any(way in words for way in scene.PLACES[there.place])
            for action in set(there.actions) - {"D"}:
                assert any(way.lower() in words.lower() for way in scene.TURNS[action])


SMALL = replace(variant("nano", "video2world").dit, blocks=1, width=64, heads=2, text_width=32)


def _random(module):
    generator = torch.Generator().manual_seed(3)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) / parameter.shape[-1] ** 0.5
    return module.eval().requires_grad_(False)


def test_a_short_text_counts_as_one_that_is_padded():
    short = _random(one_net.ShortText(SMALL, tokens=50))
    whole = CrossAttention(SMALL)
    whole.load_state_dict(short.state_dict())
    x, text = torch.randn(2, 12, 64), torch.randn(2, 7, 32)
    text[1, 4:] = 0
    padded = nn.functional.pad(text, (0, 0, 0, 43))
    assert torch.allclose(short(x, text), whole(x, padded), atol=1e-5)


def test_the_picture_network_is_the_video_network_with_nothing_known():
    video = _random(DiT(SMALL))
    image = DiT(replace(SMALL, condition_mask=False))
    image.load_state_dict(one_net.picture_weights(video.state_dict(), SMALL))
    x, t, text, position = torch.randn(2, 16, 1, 4, 6), torch.rand(2, 1), torch.randn(2, 5, 32), torch.zeros(1)
    made = image(x, t, text, position)
    assert torch.allclose(made, video(x, t, text, position, torch.zeros(2, 1)), atol=1e-5)
    assert made.std() > 0.01


def test_rotary_positions_have_the_gradient_of_a_turn():
    one_net.teach_rotary_gradient()
    q, angle = torch.randn(1, 2, 3, 8, requires_grad=True), torch.randn(1, 3, 4)
    turned = torch.onnx.ops.rotary_embedding(q, angle.cos(), angle.sin())
    weights = torch.randn(turned.shape)
    (turned * weights).sum().backward()
    a, b = q.detach().chunk(2, -1)
    again = torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1)
    assert torch.allclose(turned, again, atol=1e-5)
    with torch.no_grad():
        nudge = 1e-3 * torch.randn(q.shape)
        more = (torch.onnx.ops.rotary_embedding(q + nudge, angle.cos(), angle.sin()) * weights).sum()
        assert torch.allclose(more - (turned * weights).sum(), (q.grad * nudge).sum(), atol=1e-4)


def test_a_restated_vae_makes_the_same_of_a_video():
    torch.manual_seed(0)
    vae = train_vae.new_vae().eval().requires_grad_(False)
    video = torch.randn(2, 3, 5, 16, 16).clamp(-1, 1)
    before = vae.encode(video).latent_dist
    once = vae.decode(before.mean).sample
    found = {"mean": [0.3 * i for i in range(16)], "std": [0.5 + 0.1 * i for i in range(16)]}
    checkpoint.restate(vae, found)
    after = vae.encode(video).latent_dist
    mean, std = (torch.tensor(found[n])[:, None, None, None] for n in ("mean", "std"))
    assert torch.allclose(checkpoint.normalised(after.mean), (before.mean - mean) / std, atol=1e-4)
    assert torch.allclose(vae.decode(after.mean).sample, once, atol=1e-4)
    ratio = (after.std / before.std).mean((0, 2, 3, 4))
    wan = torch.tensor(variant("nano", "video2world").vae.latent_std)
    assert torch.allclose(ratio, wan / std[:, 0, 0, 0], rtol=1e-3)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A VAE and a transformer after two steps each, on very little; and the checkpoint that is made of them."""
    root = tmp_path_factory.mktemp("nano-runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encode, "SHARD", {"clips": 2, "images": 4})
        patch.setattr(train_dit, "SHARD", encode.SHARD)
        patch.setattr(encode, "STATISTICS_FROM", 1)
        patch.setattr(train_vae, "clips", lambda number, batch, frames: torch.rand(2, 3, 5, 16, 16) * 2 - 1)
        _main(train_vae, "--out", root / "vae", "--steps", 2)
        _main(encode, "--vae", root / "vae", "--out", root / "latents", "--clips", 1, "--images", 1, "--workers", 0)
        _main(
            train_dit, "--latents", root / "latents", "--out", root / "dit", "--steps", 2, "--images", 2, "--clips", 1
        )
    package.write_weights(root / "vae", root / "dit", root / "nano")
    return root


def _main(script, *arguments):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [script.__name__, *map(str, arguments)])
        script.main()


def test_two_steps_of_everything_leave_runs_and_latents(trained):
    for name in ("vae", "dit"):
        state = torch.load(trained / name / "state.pt", weights_only=True)
        assert state["step"] == 2
    clips, images = (np.load(trained / "latents" / f"{kind}-0000.npy") for kind in ("clips", "images"))
    assert clips.shape == (2, 16, 5, 10, 16) and images.shape == (4, 16, 1, 10, 16)
    assert clips.dtype == np.float16 and np.isfinite(clips).all() and clips.std() > 0


def test_a_decoder_is_trained_on_with_its_latents_as_they_are(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(train_vae, "clips", lambda number, batch, frames: torch.rand(2, 3, 1, 16, 16) * 2 - 1)
    _main(train_vae, "--out", tmp_path, "--steps", 2, "--decoder_of", trained / "vae")
    before, after = (checkpoint.load_vae(folder).state_dict() for folder in (trained / "vae", tmp_path))
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"decoder", "post_quant_conv"}


def test_the_packaged_checkpoint_has_the_layout_of_the_seeded_one(trained, tmp_path):
    seeded = make_checkpoint(tmp_path)
    for file in PARTS.values():
        with safe_open(trained / "nano" / file, "pt") as ours, safe_open(seeded / file, "pt") as theirs:
            shapes = [{key: f.get_slice(key).get_shape() for key in f.keys()} for f in (ours, theirs)]  # noqa: SIM118
            assert shapes[0] == shapes[1] and ours.get_slice(next(iter(shapes[0]))).get_dtype() == "F16"
    tokenizer = Path("tokenizer") / "tokenizer.json"
    assert (trained / "nano" / tokenizer).read_bytes() == (seeded / tokenizer).read_bytes()


def test_reference_libraries_read_what_is_packaged(trained):
    nano = trained / "nano"
    for task in ("text2image", "video2world"):
        _, info = CosmosTransformer3DModel.from_pretrained(nano / task, output_loading_info=True)
        assert not info["missing_keys"] and not info["unexpected_keys"]
    _, info = AutoencoderKLWan.from_pretrained(nano / "vae", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert T5EncoderModel.from_pretrained(nano / "text_encoder").config.d_model == 128


def _stepped(monkeypatch, rank, size, add_up):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 6), nn.Linear(6, 3))
    optimizer = muon.Muon([layer.weight for layer in network], 0.1)
    monkeypatch.setattr(team, "rank", lambda: rank)
    monkeypatch.setattr(team, "size", lambda: size)
    monkeypatch.setattr(team, "add_up", add_up)
    network(torch.ones(2, 4)).square().sum().backward()
    optimizer.step()
    return network


def test_processes_share_the_work_of_an_update(monkeypatch):
    """Each of two works out some updates and leaves zeros for the others; their sum is what one would find alone."""
    shares = []
    alone = _stepped(monkeypatch, 0, 1, lambda updates: None)
    for rank in (0, 1):
        _stepped(monkeypatch, rank, 2, lambda updates: shares.append([update.clone() for update in updates]))

    def both(updates):
        for update, *parts in zip(updates, *shares, strict=True):
            assert sum(bool(part.any()) for part in parts) == 1
            update.copy_(sum(parts))

    together = _stepped(monkeypatch, 0, 2, both)
    for name, value in alone.state_dict().items():
        assert torch.equal(value, together.state_dict()[name]), name


WORK = """
import subprocess
import sys
sys.path.insert(0, sys.argv[1])
import team, torch

def work(out):
    found = torch.full((3,), float(team.rank() + 1))
    more = torch.ones(2, 2) * 10 ** team.rank()
    team.add_up([found, more])
    torch.save([team.size(), found, more], f"{out}-{team.rank()}")

if __name__ == "__main__":
    team.together(work, sys.argv[2], 2)
"""


@pytest.mark.slow
def test_two_processes_add_up_their_gradients(tmp_path):
    (tmp_path / "work.py").write_text(WORK)
    examples = Path(train_vae.__file__).parent
    subprocess.run([sys.executable, tmp_path / "work.py", examples, tmp_path / "out"], check=True, timeout=300)
    for rank in (0, 1):
        size, found, more = torch.load(tmp_path / f"out-{rank}", weights_only=True)
        assert size == 2 and found.tolist() == [3.0] * 3 and more.tolist() == [[11.0] * 2] * 2
