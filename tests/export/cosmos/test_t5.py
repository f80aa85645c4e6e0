"""The text encoder against transformers on the same weights."""

from __future__ import annotations

import pytest
import torch
import transformers
from transformers.models.t5.modeling_t5 import T5Attention

from worldrt.export.modules.keys import text_keys
from worldrt.export.modules.t5 import T5Config, T5Encoder, distance_buckets

SMALL = {"layers": 3, "width": 32, "heads": 4, "head_dim": 12, "feed_forward": 48, "vocabulary": 97, "tokens": 512}


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("length", [1, 7, 77, 300])
def test_encoder_is_transformers(gated, length):
    config = T5Config(**SMALL, gated=gated)
    reference = transformers.T5EncoderModel(
        transformers.T5Config(
            vocab_size=config.vocabulary,
            d_model=config.width,
            d_kv=config.head_dim,
            d_ff=config.feed_forward,
            num_layers=config.layers,
            num_heads=config.heads,
            feed_forward_proj="gated-gelu" if gated else "relu",
        )
    ).eval()
    for parameter in reference.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    weights = {k: v for k, v in reference.state_dict().items() if k != "encoder.embed_tokens.weight"}
    encoder = T5Encoder(config)
    encoder.load_state_dict({text_keys(gated).name(key, "diffusers"): value for key, value in weights.items()})
    assert {text_keys(gated).key(name, "official") for name in encoder.state_dict()} == set(weights)

    ids = torch.randint(0, config.vocabulary, (2, length))
    mask = torch.ones(2, length)
    mask[1, (length + 1) // 2 :] = 0
    with torch.no_grad():
        got, expected = encoder(ids, mask), reference(ids, attention_mask=mask).last_hidden_state
    assert (got - expected * mask[..., None]).abs().max() <= 1e-5 * expected.abs().max()
    assert not got[mask == 0].any()


def test_distance_buckets_are_those_of_transformers():
    config = T5Config()
    distance = torch.arange(-600, 601)
    expected = T5Attention._relative_position_bucket(distance)
    table = torch.tensor(distance_buckets(config))
    assert torch.equal(table[distance.clamp(-config.max_distance, config.max_distance) + config.max_distance], expected)
