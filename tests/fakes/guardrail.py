"""The guardrail's folder with models of a few thousand weights: real classes and real file formats.

The text model answers by the last word of a prompt: `brawl` is unsafe, `mumble` gets an answer of no known form, every
other word is safe. The classifier and the face model have a fixed opinion, which a test chooses.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "safety" / "retinaface.safetensors"
LLAMA = {"safe": "<|eot_id|>", "unsafe": "\nS1,S10", "\nS1,S10": "<|eot_id|>", "perhaps": "<|eot_id|>"}
QWEN = {
    "safe": "Safety: Safe", "unsafe": "Safety: Unsafe", "perhaps": "<|eot_id|>", "shout": "Safety: Controversial",
    "Safety: Safe": "\nCategories: None", "Safety: Unsafe": "\nCategories: Violent, Suicide & Self-Harm",
    "Safety: Controversial": "\nCategories: None",
    "\nCategories: None": "<|eot_id|>", "\nCategories: Violent, Suicide & Self-Harm": "<|eot_id|>",
}  # fmt: skip


def make_guardrail(folder: Path, *, unsafe: int = 0, faces: bool = False, qwen: bool = False) -> Path:
    """A whole folder. `unsafe` is the class that every frame has (0: safe); `faces`: whether all is full of faces."""
    official = folder / "nvidia" / "Cosmos-Guardrail1"
    for name, text in {"custom/a.txt": "zorble\n", "exact_match/b": "quux plim\n", "whitelist/c": "zorbles"}.items():
        file = official / "blocklist" / name
        file.parent.mkdir(parents=True)
        file.write_text(text)
    make_text_model(folder / ("Qwen/Qwen3Guard-Gen-0.6B" if qwen else "meta-llama/Llama-Guard-3-8B"), qwen=qwen)
    video = official / "video_content_safety_filter"
    make_siglip(video / "models--google--siglip-so400m-patch14-384" / "snapshots" / "0")
    make_classifier(video / "safety_filter.pt", unsafe)
    make_faces(official / "face_blur_filter" / "Resnet50_Final.pth", faces)
    return folder


def make_text_model(folder: Path, *, qwen: bool = False) -> None:
    """Whose next token follows from the last one alone: embeddings are one-hot, and attention adds nothing."""
    answers = QWEN if qwen else LLAMA
    chain = {"brawl": "unsafe", "mumble": "perhaps", **answers}
    if qwen:
        chain |= {"brawl": "Safety: Unsafe"}
    words = ["<unk>", "<pad>", "<|eot_id|>", "User", *dict.fromkeys([*chain, *chain.values()])]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, "<unk>"))
    made.pre_tokenizer, made.decoder = pre_tokenizers.Whitespace(), decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="<unk>", pad_token="<pad>", eos_token="<|eot_id|>"
    )
    tokenizer.chat_template = "User {% for m in messages %}{{ m.content }}{% endfor %}"
    sizes = dict(
        vocab_size=32, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=256, tie_word_embeddings=False,
        eos_token_id=words.index("<|eot_id|>"),
    )  # fmt: skip
    model = Qwen3ForCausalLM(Qwen3Config(**sizes)) if qwen else LlamaForCausalLM(LlamaConfig(**sizes))
    safe = "Safety: Safe" if qwen else "safe"
    follows = torch.zeros(32, 32)
    for i in range(32):
        word = words[i] if i < len(words) else safe
        follows[words.index(chain.get(word, safe)), i] = 1
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(torch.eye(32))
        model.lm_head.weight.copy_(follows)
        model.model.layers[0].self_attn.o_proj.weight.zero_()
        model.model.layers[0].mlp.down_proj.weight.zero_()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make_siglip(folder: Path) -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = SiglipConfig(
        vision_config=sizes | {"image_size": 28, "patch_size": 14}, text_config=sizes | {"vocab_size": 64}
    )
    SiglipModel(config).save_pretrained(folder)
    SiglipImageProcessor(size={"height": 28, "width": 28}).save_pretrained(folder)


def classifier_weights(rng: np.random.Generator, width: int = 32) -> dict[str, torch.Tensor]:
    """Random weights in the shapes of the classifier, under its names."""
    made = {}
    for layer, (into, out) in {0: (width, 512), 3: (512, 256), 6: (256, 7)}.items():
        made[f"{layer}.weight"], made[f"{layer}.bias"] = rng.normal(0, into**-0.5, (out, into)), rng.normal(0, 1, out)
        if layer < 6:
            made[f"{layer + 1}.running_mean"], made[f"{layer + 1}.bias"] = rng.normal(0, 0.1, (2, out))
            made[f"{layer + 1}.running_var"], made[f"{layer + 1}.weight"] = rng.uniform(0.5, 1.5, (2, out))
    return {f"network.layers.{name}": torch.tensor(value, dtype=torch.float32) for name, value in made.items()}


def make_classifier(file: Path, unsafe: int) -> None:
    weights = classifier_weights(np.random.default_rng(0))
    weights["network.layers.6.weight"].zero_()
    weights["network.layers.6.bias"].copy_(torch.eye(7)[unsafe])
    torch.save({"model": weights}, file)


def seeded(shapes: dict[str, list[int]], seed: int = 3) -> dict[str, torch.Tensor]:
    """Weights by name, the same everywhere: those of a network that keeps the size of its activations."""
    made = {}
    for name, shape in shapes.items():
        rng = np.random.default_rng([seed, *name.encode()])
        if name.endswith("running_var"):
            weight = rng.uniform(0.5, 1.5, shape)
        elif name.endswith("running_mean"):
            weight = rng.normal(0, 0.1, shape)
        elif len(shape) == 1:
            weight = rng.uniform(0.5, 1.0, shape) if name.endswith("weight") else rng.normal(0, 0.1, shape)
        else:
            weight = rng.normal(0, np.prod(shape[1:]) ** -0.5, shape)
        made[name] = torch.from_numpy(weight.astype(np.float32))
    return made


def golden_faces() -> tuple[dict[str, np.ndarray], dict[str, torch.Tensor], float]:
    """What RetinaFace of its own package made of the picture of seed 5: arrays, its weights, and a threshold."""
    with safe_open(GOLDEN, "np") as file:
        meta = json.loads(file.metadata()["meta"])
        arrays = {name: file.get_tensor(name) for name in ("boxes", "scores", "kept", "priors")}
    return arrays, seeded(meta["shapes"]), meta["threshold"]


def make_faces(file: Path, faces: bool) -> None:
    """RetinaFace, 32 times narrower, whose anchors are all faces or all none."""
    with safe_open(GOLDEN, "np") as golden:
        shapes = json.loads(golden.metadata()["meta"])["shapes"]
    narrow = {name: [n // 32 if n >= 64 else n for n in shape] for name, shape in shapes.items()}
    weights = seeded(narrow)
    for name in weights:
        if name.startswith(("ClassHead", "BboxHead")):
            weights[name].zero_()
        if name.startswith("ClassHead") and name.endswith("bias"):
            weights[name][1::2] = 5.0 if faces else -5.0
    file.parent.mkdir(parents=True)
    torch.save({f"module.{name}": tensor for name, tensor in weights.items()}, file)
