"""Prompts with their padding against transformers."""

from __future__ import annotations

import torch
import transformers

from worldrt.export.modules.keys import text_keys
from worldrt.export.modules.padded import PaddedEncoder
from worldrt.export.modules.t5 import T5Config


def test_padding_takes_part_as_in_training():
    """The official pipeline pads to the model's length and gives no mask."""
    config = T5Config(layers=2, width=32, heads=4, head_dim=8, feed_forward=48, gated=True, vocabulary=97, tokens=20)
    reference = transformers.T5EncoderModel(
        transformers.T5Config(
            vocab_size=97, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, feed_forward_proj="gated-gelu"
        )
    ).eval()
    for parameter in reference.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    encoder = PaddedEncoder(config)
    keys = text_keys(gated=True)
    state = {k: v for k, v in reference.state_dict().items() if k != "encoder.embed_tokens.weight"}
    encoder.t5.load_state_dict({keys.name(key, "diffusers"): value for key, value in state.items()})
    ids = torch.randint(2, 97, (1, 7))
    padded = torch.nn.functional.pad(ids, (0, 13))
    with torch.no_grad():
        expected = reference(padded).last_hidden_state
        for given, mask in ((ids, torch.ones(1, 7)), (torch.cat([ids, ids], 1), torch.tensor([[1.0] * 7 + [0.0] * 7]))):
            assert (encoder(given, mask) - expected).abs().max() <= 1e-5 * expected.abs().max()
        assert (reference(padded, attention_mask=(padded > 0).float()).last_hidden_state - expected).abs().max() > 0.01
