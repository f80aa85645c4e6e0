"""LoRA files: every key finds its weight or is named; the merged weight is the formula's, rounded once."""

import json
import math
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from safetensors.torch import save_file

from worldrt.engine.bundle import Graph, Weight
from worldrt.engine.device import HostDevice, host_buffer
from worldrt.engine.errors import CheckpointError, InputError
from worldrt.engine.lora import LoraChoice, parse_choice, terms_of
from worldrt.engine.merge import Term, merged, narrowed, widened
from worldrt.engine.namings import plain, spellings
from worldrt.engine.overlay import Overlay
from worldrt.engine.safetensors import SafetensorsFile
from worldrt.engine.session import open_session
from worldrt.engine.tensors import TensorSpec
from worldrt.export.families.cosmos.weights import dit_keys

OFFICIAL = {
    "net.blocks.0.self_attn.q_proj.weight": (6, 8),
    "net.blocks.0.self_attn.output_proj.weight": (8, 6),
    "net.blocks.11.mlp.layer1.weight": (20, 8),
    "net.x_embedder.proj.1.weight": (8, 4),
}
DIFFUSERS = {
    "transformer_blocks.0.attn1.to_q.weight": (6, 8),
    "transformer_blocks.0.attn1.to_out.0.weight": (8, 6),
    "transformer_blocks.11.ff.net.0.proj.weight": (20, 8),
    "patch_embed.proj.weight": (8, 4),
}
RANK = 3


def halves(seed=0):
    """A and B of each weight, in the order of the tables above."""
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(RANK, columns, generator=generator), torch.randn(rows, RANK, generator=generator))
        for rows, columns in OFFICIAL.values()
    ]


def save(path, table, names=("lora_A.weight", "lora_B.weight"), prefix="", alpha=None, rename=plain, seed=0, **more):
    tensors = dict(more)
    for key, pair in zip(table, halves(seed), strict=True):
        module = prefix + rename(key.removesuffix(".weight"))
        tensors |= {f"{module}.{name}": half for name, half in zip(names, pair, strict=True)}
        if alpha is not None:
            tensors[f"{module}.alpha"] = torch.tensor(alpha)
    save_file(tensors, path)
    return path


NAMES = {
    "diffusers": (DIFFUSERS, {"prefix": "transformer."}),
    "PEFT": (DIFFUSERS, {"prefix": "base_model.model."}),
    "bare": (DIFFUSERS, {}),
    "the official scripts": (OFFICIAL, {"prefix": "net.", "names": ("lora_A.default.weight", "lora_B.default.weight")}),
    "other tools": (OFFICIAL, {"prefix": "diffusion_model."}),
    "down and up": (OFFICIAL, {"names": ("lora_down.weight", "lora_up.weight"), "alpha": float(RANK)}),
    "old diffusers": (DIFFUSERS, {"prefix": "transformer.", "names": ("lora.down.weight", "lora.up.weight")}),
    "underscores": (
        OFFICIAL,
        {
            "prefix": "lora_unet_",
            "names": ("lora_down.weight", "lora_up.weight"),
            "rename": lambda key: plain(key).replace(".", "_"),
        },
    ),
}


@pytest.mark.parametrize("weights", [OFFICIAL, DIFFUSERS], ids=["official checkpoint", "diffusers checkpoint"])
@pytest.mark.parametrize("name", NAMES)
def test_every_known_way_of_naming_is_read_for_either_checkpoint(tmp_path, name, weights):
    table, how = NAMES[name]
    found = terms_of([LoraChoice(save(tmp_path / "l.safetensors", table, **how), 0.5)], weights)
    assert set(found) == set(weights)
    for key, (a, b) in zip(weights, halves(), strict=True):
        (term,) = found[key]
        assert np.array_equal(term.a, a.numpy()) and np.array_equal(term.b, b.numpy())
        assert term.factor == 0.5


def test_the_two_namings_are_those_of_the_exporter():
    for _, official, diffusers in dit_keys().rows:
        for i in (0, 7, 35):
            one, other = official.replace("{i}", str(i)), diffusers.replace("{i}", str(i))
            assert list(spellings(one)) == [one, other]
            assert list(spellings(other)) == [other, one]
    for unknown in ("blocks.0.odd.q_proj", "blocks.x.self_attn.q_proj", "transformer_blocks.0.attn1.odd", "x"):
        assert list(spellings(unknown)) == [unknown]


@pytest.mark.parametrize(
    "name, expected",
    [
        ("transformer.transformer_blocks.0.attn1", "transformer_blocks.0.attn1"),
        ("transformer_blocks.0.attn1", "transformer_blocks.0.attn1"),
        ("base_model.model.net.blocks.0", "blocks.0"),
        ("net_ema.blocks.0", "net_ema.blocks.0"),
        ("network.blocks", "network.blocks"),
    ],
)
def test_prefixes_of_tools(name, expected):
    assert plain(name) == expected


def stored(values, dtype):
    """A float tensor as a store holds it."""
    made = values.to(getattr(torch, dtype))
    return made.view(torch.int16).numpy().view(np.uint16) if dtype == "bfloat16" else made.numpy()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("chunk", [10, 1 << 22])
def test_a_merged_weight_is_the_formula_in_float64_rounded_once(dtype, chunk, monkeypatch):
    monkeypatch.setattr("worldrt.engine.merge._CHUNK_VALUES", chunk)
    generator = torch.Generator().manual_seed(1)
    base = torch.randn(40, 24, generator=generator).to(getattr(torch, dtype))
    terms, exact = [], base.double()
    for rank, factor in ((4, 0.7), (7, -1.3)):
        a, b = torch.randn(rank, 24, generator=generator), torch.randn(40, rank, generator=generator)
        terms.append(Term(a.numpy(), b.numpy(), factor))
        exact += factor * (b.double() @ a.double())
    made = merged(stored(base, dtype), dtype, terms)
    actual = torch.from_numpy(widened(made, dtype)).double()
    spacing = {"float32": 2**-23, "float16": 2**-10, "bfloat16": 2**-7}[dtype]
    error = (actual - exact).abs()
    assert bool((error <= 0.5 * spacing * exact.abs() + 1e-5).all())
    if dtype != "float32":  # but for a few values near a tie, the rounding of the exact sum
        assert (made == stored(exact, dtype)).mean() > 0.99


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype, most", [("float16", 65504.0), ("bfloat16", 3.3895313892515355e38), ("float32", 3e38)])
def test_a_sum_that_cannot_be_stored_is_refused_and_not_infinity(tmp_path, dtype, most):
    base = np.full((6, 8), stored(torch.tensor(1.0), dtype))
    ones = np.ones((6, 1), np.float32), np.ones((1, 8), np.float32)
    kept = merged(base, dtype, [Term(ones[1], ones[0], most)])
    assert widened(kept, dtype).max() == np.float32(most)
    for factor in (most * 1.1, -most * 1.1):
        with pytest.raises(OverflowError, match=dtype):
            merged(base, dtype, [Term(ones[1], ones[0], factor), Term(ones[1], ones[0], most * 0.2 * np.sign(factor))])
    save_file({"w": torch.ones(6, 8, dtype=getattr(torch, dtype))}, tmp_path / "w.safetensors")
    terms = {"w": (Term(ones[1], ones[0], most), Term(ones[1], ones[0], most))}
    store = Overlay(tmp_path, {"w": SafetensorsFile.open(tmp_path / "w.safetensors")}, {}, terms)
    with pytest.raises(CheckpointError, match="'w' with its LoRAs.*lower their scales"):
        store["w"]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [math.nan, math.inf, 1e300])
def test_halves_with_values_that_are_no_numbers_are_refused(tmp_path, value):
    a, b = (half.double() for half in halves()[0])
    b[2, 1] = value
    save_file({f"{Q}.lora_A.weight": a, f"{Q}.lora_B.weight": b}, tmp_path / "l.safetensors")
    with pytest.raises(CheckpointError, match="lora_B.weight' holds values that are no numbers"):
        terms_of([LoraChoice(tmp_path / "l.safetensors")], OFFICIAL)


def test_a_factor_that_is_no_float32_is_refused(tmp_path):
    path = save(tmp_path / "l.safetensors", OFFICIAL)
    with pytest.raises(CheckpointError, match="scale \\* alpha / rank, is 1e"):
        terms_of([LoraChoice(path, 1e200)], OFFICIAL)


def test_bfloat16_is_rounded_as_torch_does():
    bits = np.random.default_rng(0).integers(0, 1 << 32, 200_000, np.uint32)
    ties = (np.arange(65536, dtype=np.uint32) << 16) | 0x8000
    values = np.concatenate([bits, ties, ties + 1, ties - 1, ties & 0xFFFF0000]).view(np.float32)
    expected = torch.from_numpy(values.copy()).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    made = narrowed(values, "bfloat16")
    nan = np.isnan(values)
    assert np.array_equal(made[~nan], expected[~nan])
    assert np.isnan(widened(made, "bfloat16")[nan]).all()
    assert np.array_equal(narrowed(widened(made, "bfloat16"), "bfloat16")[~nan], made[~nan])


def test_scale_0_changes_nothing_but_is_checked(tmp_path):
    path = save(tmp_path / "l.safetensors", OFFICIAL)
    assert terms_of([LoraChoice(path, 0.0)], OFFICIAL) == {}
    with pytest.raises(CheckpointError, match="match no weight"):
        terms_of([LoraChoice(path, 0.0)], {"other.weight": (6, 8)})


def test_the_order_of_files_makes_no_difference(tmp_path):
    choices = [LoraChoice(save(tmp_path / f"{n}.safetensors", OFFICIAL, seed=n), 0.3 * n) for n in (1, 2, 3)]
    base = np.random.default_rng(0).standard_normal((6, 8)).astype(np.float32)
    key = next(iter(OFFICIAL))
    made = [merged(base, "float32", terms_of(order, OFFICIAL)[key]) for order in (choices, choices[::-1])]
    assert np.array_equal(*made)
    sums = sum(0.3 * n * (b.double() @ a.double()) for n, (a, b) in ((n, halves(n)[0]) for n in (1, 2, 3)))
    assert np.allclose(made[0], base + sums.numpy(), atol=1e-5)


def metadata(**facts):
    return {"lora_adapter_metadata": json.dumps({f"transformer.{name}": value for name, value in facts.items()})}


def test_alpha_is_taken_from_where_the_tools_put_it(tmp_path):
    def factor(path):
        return {term.factor for (term,) in terms_of([LoraChoice(path, 2.0)], OFFICIAL).values()}

    assert factor(save(tmp_path / "none.safetensors", OFFICIAL)) == {2.0}
    assert factor(save(tmp_path / "own.safetensors", OFFICIAL, alpha=6.0)) == {2.0 * 6 / RANK}
    assert factor(save(tmp_path / "whole.safetensors", OFFICIAL, alpha=6)) == {2.0 * 6 / RANK}
    assert factor(save(tmp_path / "vector.safetensors", OFFICIAL, alpha=[6.0])) == {2.0 * 6 / RANK}
    adapter = save(tmp_path / "adapter_model.safetensors", OFFICIAL)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": 9, "r": RANK}))
    assert factor(adapter) == {2.0 * 9 / RANK}
    (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": 9, "use_rslora": True}))
    assert factor(adapter) == {2.0 * 9 / math.sqrt(RANK)}
    a, b = halves()[0]
    both = {"blocks.0.self_attn.q_proj.lora_A.weight": a, "blocks.0.self_attn.q_proj.lora_B.weight": b}
    save_file(both, tmp_path / "meta.safetensors", metadata(lora_alpha=12, r=RANK))
    assert factor(tmp_path / "meta.safetensors") == {2.0 * 12 / RANK}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_halves_of_any_float_dtype(tmp_path, dtype):
    a, b = (half.to(dtype) for half in halves()[0])
    name = "blocks.0.self_attn.q_proj"
    save_file({f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}, tmp_path / "l.safetensors")
    ((term,),) = terms_of([LoraChoice(tmp_path / "l.safetensors")], OFFICIAL).values()
    assert np.array_equal(term.a, a.float().numpy()) and np.array_equal(term.b, b.float().numpy())


Q = "blocks.0.self_attn.q_proj"
WRONG = {
    "a layer that is not there": ({"blocks.99.self_attn.q_proj.lora_A.weight": (3, 8)}, "'blocks.99.self_attn.q_proj"),
    "a norm, which is no matrix": ({"blocks.0.self_attn.q_norm.lora_A.weight": (3, 8)}, "match no weight"),
    "DoRA": ({f"{Q}.lora_magnitude_vector": (6,)}, "lora_magnitude_vector"),
    "whole weights": ({f"{Q}.base_layer.weight": (6, 8)}, "holds whole weights"),
    "a bias": ({f"{Q}.lora_B.bias": (6,)}, "lora_B.bias"),
    "half a layer": ({"blocks.11.mlp.layer1.lora_A.weight": (3, 8)}, "its other half is missing"),
    "two adapters": ({f"{Q}.lora_A.second.weight": (3, 8)}, "more than one LoRA"),
    "another adapter elsewhere": (
        {"blocks.11.mlp.layer1.lora_A.b.weight": (3, 8), "blocks.11.mlp.layer1.lora_B.b.weight": (20, 3)},
        "more than one LoRA: '', 'b'",
    ),
    "two namings at once": ({"transformer_blocks.0.attn1.to_q.lora_A.weight": (3, 8)}, "more than one LoRA"),
    "many alphas": ({f"{Q}.alpha": (2,)}, "expected one number"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_file_that_is_no_lora_of_this_model_is_refused_by_name(tmp_path, name):
    more, text = WRONG[name]
    tensors = {f"{Q}.lora_A.weight": torch.ones(3, 8), f"{Q}.lora_B.weight": torch.ones(6, 3)}
    save_file(tensors | {key: torch.ones(shape) for key, shape in more.items()}, tmp_path / "l.safetensors")
    with pytest.raises(CheckpointError, match=re.escape(text)) as error:
        terms_of([LoraChoice(tmp_path / "l.safetensors")], OFFICIAL)
    assert "l.safetensors" in str(error.value)


@pytest.mark.parametrize(
    "a, b", [((3, 9), (6, 3)), ((3, 8), (7, 3)), ((3, 8), (6, 2)), ((3, 8, 1), (6, 3)), ((0, 8), (6, 0))]
)
def test_halves_that_do_not_fit_are_refused(tmp_path, a, b):
    save_file({f"{Q}.lora_A.weight": torch.ones(a), f"{Q}.lora_B.weight": torch.ones(b)}, tmp_path / "l.safetensors")
    with pytest.raises(CheckpointError, match=r"make no change of 'net.blocks.0.self_attn.q_proj.weight'.*\[6, 8\]"):
        terms_of([LoraChoice(tmp_path / "l.safetensors")], OFFICIAL)


@pytest.mark.parametrize(
    "facts, text",
    [
        ({"use_dora": True}, "use_dora"),
        ({"alpha_pattern": {"q": 3}}, "alpha_pattern"),
        ({"lora_alpha": "much"}, "expected a number"),
        ({"lora_alpha": 10**400}, "expected a number"),
    ],
)
def test_settings_that_cannot_be_followed_are_refused(tmp_path, facts, text):
    a, b = halves()[0]
    save_file({f"{Q}.lora_A.weight": a, f"{Q}.lora_B.weight": b}, tmp_path / "l.safetensors", metadata(**facts))
    with pytest.raises(CheckpointError, match=text):
        terms_of([LoraChoice(tmp_path / "l.safetensors")], OFFICIAL)


@pytest.mark.parametrize("text", ["[]", "5", "null", '"text"', "{", '{"lora_alpha": 1, "lora_alpha": 2}'])
def test_settings_that_are_no_object_are_refused(tmp_path, text):
    a, b = halves()[0]
    tensors = {f"{Q}.lora_A.weight": a, f"{Q}.lora_B.weight": b}
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(text)
    save_file(tensors, tmp_path / "l.safetensors", {"lora_adapter_metadata": text})
    for name in ("adapter_model.safetensors", "l.safetensors"):
        with pytest.raises(CheckpointError, match="settings of the LoRA cannot be read"):
            terms_of([LoraChoice(tmp_path / name)], OFFICIAL)


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "l.pt").write_bytes(b"x")
    (tmp_path / "cut.safetensors").write_bytes(b"x" * 4)
    save_file({}, tmp_path / "empty.safetensors")
    for name, text in (("l.pt", "convert it"), ("cut.safetensors", "cut short"), ("empty.safetensors", "no tensors")):
        with pytest.raises(CheckpointError, match=text):
            terms_of([LoraChoice(tmp_path / name)], OFFICIAL)
    with pytest.raises(CheckpointError, match="cannot be read"):
        terms_of([LoraChoice(tmp_path / "missing.safetensors")], OFFICIAL)


def test_a_flag_holds_a_path_and_a_scale(tmp_path):
    odd = tmp_path / "a:0.5"
    odd.write_text("")
    path = tmp_path / "a.safetensors"
    path.write_text("")
    assert parse_choice(f"{path}") == LoraChoice(path, 1.0)
    assert parse_choice(f"{path}:0.8") == LoraChoice(path, 0.8)
    assert parse_choice(f"{path}:-1") == LoraChoice(path, -1.0)
    assert parse_choice(str(odd)) == LoraChoice(odd, 1.0)
    assert parse_choice(f"{odd}:2") == LoraChoice(odd, 2.0)
    assert parse_choice("a" * 5000 + ":0.5").path == Path("a" * 5000)  # longer than a name can be: said when it is read
    for wrong in ("nan", "inf", "much"):
        with pytest.raises(InputError, match="FILE:SCALE"):
            parse_choice(f"{path}:{wrong}")


def test_bfloat16_external_data_is_replaced_in_onnx_runtime(tmp_path):
    """A graph that widens its weight, whose own file is not there."""
    stored_at = {"location": "missing.safetensors", "offset": "0", "length": "24"}
    weight = onnx.TensorProto(name="w", data_type=TensorProto.BFLOAT16, dims=[4, 3], data_location=TensorProto.EXTERNAL)
    for key, value in stored_at.items():
        weight.external_data.add(key=key, value=value)
    nodes = [
        helper.make_node("Cast", ["w"], ["v"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "v"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", s]) for n, s in (("x", 4), ("y", 3)))
    model = helper.make_model(
        helper.make_graph(nodes, "g", [x], [y], [weight]), opset_imports=[helper.make_opsetid("", 21)], ir_version=10
    )
    (tmp_path / "g.onnx").write_bytes(model.SerializeToString())
    specs = TensorSpec("x", "float32", ("batch", 4)), TensorSpec("y", "float32", ("batch", 3))
    used = Weight("w", "blocks.0.w", "bfloat16", (4, 3))
    graph = Graph("g.onnx", "", specs[:1], specs[1:], "external", (used,))
    values = torch.arange(12).reshape(4, 3).to(torch.bfloat16)
    save_file({"blocks.0.w": values}, tmp_path / "other.safetensors")
    one = Term(np.ones((1, 3), np.float32), np.ones((4, 1), np.float32), 2.0)
    file = SafetensorsFile.open(tmp_path / "other.safetensors")
    store = Overlay(tmp_path, {used.key: file}, {used.key: used.key}, {used.key: (one,)})
    session = open_session("onnxruntime", tmp_path / "g.onnx", graph, HostDevice(), weight_root=tmp_path, weights=store)
    del store, file
    call = session.bind({}, {"x": host_buffer(np.eye(4, dtype=np.float32))})
    call.run()
    assert np.array_equal(call["y"].numpy(), values.float().numpy() + 2)
