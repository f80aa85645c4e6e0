"""What text encoders have to do, from their sizes alone."""

from __future__ import annotations

from worldrt.benchmarks.costs.work import Work, attention, linear
from worldrt.export.modules.clip import CLIPConfig
from worldrt.export.modules.t5 import T5Config

FLOAT, INTEGER = 4, 8
"""Bytes of a value of the mask and of the text; of an id."""


def encoder(config: T5Config, tokens: int, item_bytes: int, batch: int = 1, padded: int = 0) -> Work:
    """`tokens` go in. Where they are padded to `padded` tokens first, these are all computed."""
    inner, rows = config.heads * config.head_dim, batch * (padded or tokens)
    widths = 3 if config.gated else 2
    flops = 4 * linear(rows, config.width, inner) + widths * linear(rows, config.width, config.feed_forward)
    attended = attention(batch, padded or tokens, padded or tokens, inner)
    layer = 4 * config.width * inner + widths * config.width * config.feed_forward + 2 * config.width
    shared = config.vocabulary * config.width + config.buckets * config.heads + config.width
    edges = batch * tokens * (INTEGER + FLOAT) + rows * config.width * FLOAT
    parameters = config.layers * layer + shared
    return Work(config.layers * flops, config.layers * attended, 0.0, float(parameters * item_bytes), float(edges))


def clip(config: CLIPConfig, tokens: int, item_bytes: int, batch: int = 1) -> Work:
    """An encoder of CLIP; `tokens` go in, and are padded to all that it has."""
    d, rows = config.width, batch * config.tokens
    flops = config.layers * (4 * linear(rows, d, d) + 2 * linear(rows, d, config.feed_forward))
    flops += linear(batch, d, config.projection)
    layer = 4 * (d * d + d) + 2 * d * config.feed_forward + config.feed_forward + d + 4 * d
    shared = (config.vocabulary + config.tokens) * d + 2 * d + d * config.projection
    attended = config.layers * attention(batch, config.tokens, config.tokens, d)
    edges = batch * tokens * (INTEGER + FLOAT) + FLOAT * (rows * d + batch * config.projection)
    return Work(flops, attended, 0.0, float((config.layers * layer + shared) * item_bytes), float(edges))
