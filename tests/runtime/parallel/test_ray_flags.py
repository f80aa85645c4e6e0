"""The flags of pools, and the environment that users of The Matrix have."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from worldrt.engine.errors import InputError
from worldrt.runtime import flags, world_flags
from worldrt.runtime.cli import build_parser, main
from worldrt.runtime.parallel.pools.opening import pooled
from worldrt.runtime.parallel.ray_flags import gpus_of
from worldrt.runtime.schedule import methods


def world(*given):
    args = build_parser().parse_args(["world", "--length", "2", *given])
    world_flags.check(args)
    return args


def batch(*given):
    args = build_parser().parse_args(["text2world", "--prompt", "a", *given])
    flags.check(args)
    return args


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for name in ("NUM_GPUS_DIT", "NUM_GPUS_VAE", "MODEL_PATH"):
        monkeypatch.delenv(name, raising=False)


def test_the_environment_of_the_matrix_is_the_default(monkeypatch, tmp_path):
    (tmp_path / "bundle.json").touch()
    monkeypatch.setenv("NUM_GPUS_DIT", "2")
    monkeypatch.setenv("NUM_GPUS_VAE", "3")
    monkeypatch.setenv("MODEL_PATH", str(tmp_path))
    args = world("--ray")
    assert (args.num_gpus_dit, args.num_gpus_vae, args.bundle) == (2, 3, [str(tmp_path)])
    args = world("--ray", "--num-gpus-vae", "2", "--bundle", "other")
    assert (args.num_gpus_vae, args.bundle) == (2, ["other"])
    args = world()
    assert (args.num_gpus_vae, args.bundle) == (None, [])


def test_a_model_path_that_is_a_checkpoint_holds_the_weights_of_the_bundle(monkeypatch, tmp_path):
    monkeypatch.setenv("MODEL_PATH", str(tmp_path))
    args = world("--ray")
    assert (args.bundle, args.checkpoint) == ([], [str(tmp_path)])
    monkeypatch.setenv("MODEL_PATH", str(tmp_path / "none"))
    with pytest.raises(InputError, match=r"\$MODEL_PATH: expected the folder"):
        world("--ray")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--num_gpus_vae", "2"], "--num_gpus_vae: it is about pools; add --ray"),
        (["--ray_spare"], "--ray_spare: it is about pools; add --ray"),
        (["--ray_address", "auto"], "--ray_address: it names a cluster of Ray; add --ray"),
        (["--ray", "--ray_address", "ray://head:10001"], "run this on a machine of the cluster"),
        (["--ray", "--num_gpus_vae", "0"], "--num_gpus_vae: expected a number of GPUs from 1 to 64, got '0'"),
        (["--ray", "--num_gpus_dit", "65"], "--num_gpus_dit: expected a number of GPUs from 1 to 64, got '65'"),
        (["--ray", "--ray_window", "0"], "--ray_window: expected 1 to 64, got 0"),
        (["--ray", "--ray_checkpoint", "0"], "--ray_checkpoint: expected 1"),
    ],
)
def test_what_cannot_be_used_is_said(given, said):
    with pytest.raises(InputError) as error:
        world(*given)
    assert said in str(error.value)


def test_a_number_of_the_environment_that_is_none_is_said_by_its_name(monkeypatch):
    monkeypatch.setenv("NUM_GPUS_VAE", "many")
    with pytest.raises(InputError, match=r"\$NUM_GPUS_VAE: expected a number of GPUs"):
        world("--ray")


def test_a_batch_wants_its_list(tmp_path):
    with pytest.raises(InputError, match="give --batch_input_json"):
        batch("--ray")
    assert batch("--ray", "--batch_input_json", "list.json", "--num_gpus", "4").num_gpus == 4
    with pytest.raises(InputError, match="--benchmark: it measures one process"):
        batch("--ray", "--batch_input_json", "list.json", "--benchmark")


def test_workers_ask_for_gpus_only_where_they_run_on_them():
    assert gpus_of(world("--ray")) == 0
    assert gpus_of(world("--ray", "--device", "cuda")) == 1
    with pytest.raises(InputError, match="Ray chooses the GPU of each worker"):
        gpus_of(world("--ray", "--device", "cuda:1"))


def test_the_command_line_says_it_in_one_line(capsys):
    assert main(["world", "--num_gpus_vae", "2"]) == 2
    assert capsys.readouterr().err == "error: --num_gpus_vae: it is about pools; add --ray\n"


def test_a_transformer_in_one_graph_is_not_shared_by_frames():
    """It is said before any cluster is started."""
    args, whole = world("--ray", "--num_gpus_dit", "2"), methods.swin_dpm(4, 4, 1)
    model = SimpleNamespace(schedule=whole, spec=SimpleNamespace(form="whole"))
    with (
        pytest.raises(InputError, match="--num_gpus_dit 2: .* --form block, or say --num_gpus_dit 1"),
        pooled(args, model),
    ):
        pass
