"""What surrounds the transformer, against diffusers and transformers: the image VAE, CLIP and its tokenizer."""

from __future__ import annotations

import diffusers
import pytest
import torch
import transformers
from tokenizers import Tokenizer

from worldrt.engine.errors import CheckpointError, InputError
from worldrt.export.families.opendwm.config import configured
from worldrt.export.families.opendwm.parts import model
from worldrt.export.families.opendwm.vae import Decode, Encode
from worldrt.export.families.opendwm.variants import NANO, VAEConfig, variant
from worldrt.export.modules import clip_tokenizer
from worldrt.export.modules.clip import CLIPConfig, CLIPEncoder
from worldrt.export.plan import Options

SMALL = VAEConfig(widths=(8, 8, 16, 16), layers=2, groups=4, latent_channels=4)


@pytest.fixture(scope="module")
def vae():
    """Of diffusers."""
    torch.manual_seed(0)
    made = diffusers.AutoencoderKL(
        block_out_channels=SMALL.widths, down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4, layers_per_block=2, norm_num_groups=4, latent_channels=4,
        use_quant_conv=False, use_post_quant_conv=False,
    ).eval()  # fmt: skip
    return made.requires_grad_(False)


def loaded(module, vae):
    module.load_state_dict({k: v for k, v in vae.state_dict().items() if k in module.state_dict()})
    return module.requires_grad_(False)


def test_pictures_are_decoded_as_by_diffusers(vae):
    latent = torch.randn(2, 4, 1, 3, 5)
    decode = loaded(Decode(SMALL, pixel_format=None), vae)
    expected = vae.decode(latent.squeeze(2) / 1.5305 + 0.0609).sample
    assert (decode(latent).squeeze(2) - expected).abs().max() <= 3e-5
    pixels = loaded(Decode(SMALL), vae)(latent)
    assert pixels.shape == (2, 1, 24, 40, 3) and pixels.dtype == torch.uint8
    levels = (expected.clamp(-1, 1).permute(0, 2, 3, 1) * 127.5 + 127.5).round()
    assert (pixels[:, 0].float() - levels).abs().max() <= 1


def test_pictures_are_encoded_as_by_diffusers(vae):
    video = torch.rand(2, 3, 1, 24, 40) * 2 - 1
    mean, deviation = loaded(Encode(SMALL), vae)(video)
    expected = vae.encode(video.squeeze(2)).latent_dist
    assert (mean.squeeze(2) - (expected.mean - 0.0609) * 1.5305).abs().max() <= 1e-5
    assert (deviation.squeeze(2) - expected.std * 1.5305).abs().max() <= 1e-5


@pytest.mark.parametrize(("activation", "padding"), [("quick_gelu", 98), ("gelu", 0)])
def test_clip_is_that_of_transformers_with_its_padding(activation, padding):
    """Rows are those before the last layer, those of the padding too; the pooled one is that of the end token."""
    config = CLIPConfig(3, 24, 4, 40, 20, activation == "quick_gelu", 99, 16, padding)
    reference = transformers.CLIPTextModelWithProjection(
        transformers.CLIPTextConfig(
            vocab_size=99, hidden_size=24, intermediate_size=40, num_hidden_layers=3, num_attention_heads=4,
            projection_dim=20, hidden_act=activation, max_position_embeddings=16, bos_token_id=97, eos_token_id=98,
        )
    ).eval()  # fmt: skip
    for parameter in reference.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    encoder = CLIPEncoder(config)
    encoder.load_state_dict(reference.state_dict())
    ids = torch.tensor([[97, 5, 6, 7, 98]])
    padded = torch.nn.functional.pad(ids, (0, 11), value=padding)
    with torch.no_grad():
        expected = reference(padded, output_hidden_states=True)
        masked = torch.tensor([[1.0] * 5 + [0.0] * 2])
        for given, mask in ((ids, torch.ones(1, 5)), (torch.nn.functional.pad(ids, (0, 2), value=3), masked)):
            text, pooled = encoder(given, mask)
            assert (text - expected.hidden_states[-2]).abs().max() <= 1e-5 * text.abs().max()
            assert (pooled - expected.text_embeds).abs().max() <= 1e-5 * pooled.abs().max()


def test_the_tokenizer_of_two_files_is_that_of_transformers(tmp_path):
    clip_tokenizer.train(514, tmp_path)
    clip_tokenizer.from_files(tmp_path / "vocab.json", tmp_path / "merges.txt").save(str(tmp_path / "whole.json"))
    ours = Tokenizer.from_file(str(tmp_path / "whole.json"))
    theirs = transformers.CLIPTokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"))
    for text in ("", "Daytime.  clear sky.\tA RED car, 3 trucks!", "it's a café über 12km/h…", "<|endoftext|> road"):
        assert ours.encode(text).ids == theirs(text).input_ids, text
    assert ours.get_vocab_size() == 514 and ours.encode("").ids == [512, 513]
    (tmp_path / "merges.txt").write_text("a b c\n")
    with pytest.raises(CheckpointError, match="not the tokenizer of CLIP"):
        clip_tokenizer.from_files(tmp_path / "vocab.json", tmp_path / "merges.txt")


CONFIG = """{"latent_size": [28, 50], "data_adapter": {"sensor_channels": ["A", "B"]}, "pipeline": {
  "common_config": {"uncondition_image_color": 0.25},
  "inference_config": {"inference_steps": 30, "guidance_scale": 2, "sequence_length_per_iteration": 6},
  "model": {"_class_name": "os.system", "num_layers": 2, "num_attention_heads": 3, "attention_head_dim": 8,
    "in_channels": 16, "joint_attention_dim": 40, "pooled_projection_dim": 24, "dual_attention_layers": [0],
    "temporal_block_layers": [0, 1], "crossview_block_layers": [1], "crossview_attention_type": "rowwise",
    "pos_embed_max_size": 96, "sample_size": 64, "caption_projection_dim": 24,
    "condition_image_adapter_config": {"in_channels": 6, "channels": [24], "is_downblocks": [true]}}}}"""


def test_an_official_configuration_says_views_sizes_and_network(tmp_path):
    path = tmp_path / "c.json"
    path.write_text(CONFIG)
    v = configured(variant("opendwm"), path)
    assert (v.views, v.size_px, v.steps, v.guidance, v.uncond_image) == (2, (400, 224), 30, 2.0, 0.25)
    assert (v.dit.layers, v.dit.width, v.dit.temporal, v.dit.stages, v.dit.position_base) == (2, 24, (0, 1), 1, 32)
    assert (v.stream.groups, v.text_interval) == (6, 4)
    for old, new, says in (
        ('"rowwise"', '"full"', "crossview_attention_type: expected 'rowwise', got 'full'"),
        ("[28, 50]", "[27, 50]", "latent_size: expected even"),
        ('"num_layers": 2', '"num_layers": "2"', "num_layers: expected a whole number"),
        ('"inference_steps": 30', '"inference_steps": 25', "a multiple of the window"),
        ("[0, 1]", "[1, 0]", "temporal_block_layers: expected rising numbers"),
        ('"channels": [24]', '"channels": [32]', "expected 24 for each stage"),
        ('["A", "B"]', "[]", "expected the names of cameras"),
        ('{"latent_size"', '["latent_size"', "not a configuration"),
    ):
        path.write_text(CONFIG.replace(old, new))
        with pytest.raises(InputError, match=says):
            configured(variant("opendwm"), path)


def test_options_that_are_about_other_models_are_refused():
    for options, says in (
        (Options(NANO, task="video2world"), "has one task, world"),
        (Options(NANO, distilled=True), "--distilled: there is none"),
        (Options("opendwm-2"), "there are: nano-opendwm, opendwm"),
    ):
        with pytest.raises(InputError, match=says):
            model(options)
