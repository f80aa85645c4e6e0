"""The tokenizer of `nano`: byte-level BPE over a small grammar of driving worlds, with T5's conventions.

`<pad>` is 0, `</s>` is 1 and closes every prompt, `<unk>` is 2. Bytes are its alphabet, so every prompt can be written.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

SPECIAL = ("<pad>", "</s>", "<unk>")

_VIEWS = (
    "the dashboard camera of a car shows",
    "a wide shot from behind the windshield of",
    "an aerial view follows",
    "the front camera of an autonomous vehicle records",
    "a static camera at the roadside films",
    "the video shows",
    "a high quality photorealistic video of",
    "a low resolution, blurry and overexposed video with compression artifacts, flicker and jitter of",
)
_SUBJECTS = (
    "a red car",
    "a white delivery van that changes lanes",
    "two cyclists and a pedestrian who cross the street",
    "a yellow school bus that stops at a traffic light",
    "a heavy truck with a trailer",
    "a black motorcycle that overtakes slowly",
    "a robot arm that picks up a box from the conveyor belt",
    "children with a dog who wait at the crosswalk",
    "an ambulance with flashing blue lights",
    "an empty road with green trees on both sides",
)
_PLACES = (
    "on a busy highway with several lanes",
    "at a crowded intersection downtown between tall buildings",
    "on a narrow country road through forest and hills",
    "in a quiet residential neighborhood with parked cars",
    "on a bridge above the river",
    "in a long tunnel with orange lamps",
    "on a winding mountain pass along the coast",
    "in a warehouse with shelves and forklifts",
    "through the desert under a clear sky",
)
_CONDITIONS = (
    "at sunrise with long shadows",
    "in heavy rain, wet asphalt reflects the headlights",
    "at night under street lamps and neon signs",
    "in thick fog",
    "while snow falls and covers the ground",
    "on a sunny afternoon, white clouds drift above",
    "at dusk, the city skyline glows",
    "in strong wind, leaves fly across the lane",
)
_ENDINGS = (
    "The camera moves forward smoothly.",
    "The vehicle turns left and accelerates.",
    "Traffic slows down, brake lights turn red.",
    "The scene stays still and detailed.",
    "It merges to the right and keeps its distance.",
    "Motion is natural, textures are sharp and colors vivid.",
    "Objects appear and vanish, the picture is distorted.",
)


def train(vocabulary: int) -> Tokenizer:
    """A tokenizer with at most `vocabulary` tokens; the same one every time."""
    tokenizer = Tokenizer(models.BPE(unk_token=SPECIAL[2]))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sentences(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {SPECIAL[1]}",
        special_tokens=[(SPECIAL[1], 1)],
    )
    return tokenizer


def sentences() -> Iterator[str]:
    """Prompts of the grammar, some thousands."""
    for number, parts in enumerate(product(_VIEWS, _SUBJECTS, _PLACES, _CONDITIONS)):
        yield " ".join(parts) + ". " + _ENDINGS[number % len(_ENDINGS)]
