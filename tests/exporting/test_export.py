"""A policy in a file acts as it does here, without awr_exp, or there is no file."""

import copy
import io
import json
import re
import resource
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import awr_exp
from awr_exp.errors import UserError
from awr_exp.exporting import formats, of_numpy
from awr_exp.exporting.__main__ import main
from awr_exp.exporting.export import export
from awr_exp.networks import heads
from awr_exp.networks.actions import Q
from awr_exp.networks.bins import CategoricalBins
from awr_exp.networks.deterministic import Deterministic
from awr_exp.networks.encoded import Encoded
from awr_exp.networks.flow import Flow
from awr_exp.networks.mixture import Mixture
from awr_exp.networks.mlp import MLP
from awr_exp.networks.policy import Policy
from awr_exp.trained import Judge, TrainedPolicy
from awr_exp.types import Spec
from tests.conftest import CONTINUOUS, Cli
from tests.test_policy import PARTS

EXAMPLES = Path(__file__).parent.parent.parent / "examples" / "export"
SMALL = partial(MLP, hidden=(8,))
EDGES = Spec(3, 2, None, (-np.inf, 0.1), (np.inf, 0.3 + 1e-9))
DOORS = Spec(3, num_actions=3, action_start=4)


def trained(
    spec: Spec, head: Any, conditioned: bool = False, count: int = 1, network: Any = SMALL, seed: int = 0
) -> TrainedPolicy:
    """A policy whose parameters and normaliser mean nothing; count: of samples that its Q chooses from."""
    policy, g = Policy(spec, network, head, conditioned), torch.Generator().manual_seed(seed)
    theta = policy.start([g])
    numbers = {"actor.theta": theta + 0.3 * torch.randn(theta.shape, generator=g)}
    numbers["normalizer.mean"] = torch.randn(1, spec.obs_dim, generator=g)
    numbers["normalizer.std"] = 0.5 + torch.rand(1, spec.obs_dim, generator=g)
    numbers["normalizer.limit"] = torch.full((1, 1), 30.0)
    q = Q(spec, network, 2)
    return TrainedPolicy(
        spec, policy, numbers, 0, "runs/1, update 7", Judge(q, q.start([g]), count) if count > 1 else None
    )


NORMED = partial(MLP, hidden=(8, 6), layer_norm=True, activation="silu")
CASES: dict[str, tuple[TrainedPolicy, bool]] = {
    "conditioned": (trained(CONTINUOUS, heads.Gaussian, conditioned=True, network=NORMED), False),
    "best_of": (trained(DOORS, heads.Categorical, count=5), False),
    "mixture": (trained(CONTINUOUS, partial(Mixture, components=3)), True),
    "flow": (trained(EDGES, partial(Flow, features=4, hidden=(8,), steps=2, candidates=5)), False),
    "bins": (trained(CONTINUOUS, partial(CategoricalBins, bins=5), network=partial(SMALL, activation="elu")), True),
    "parts": (trained(PARTS, heads.Categorical), True),
    "best_continuous": (trained(CONTINUOUS, partial(heads.TanhGaussian, std=0.3), count=4, network=NORMED), False),
    "state_dependent": (trained(CONTINUOUS, partial(heads.Gaussian, std="state_dependent")), True),
    "mode_of_mixture": (trained(CONTINUOUS, Mixture), False),
    "sampled_flow": (trained(CONTINUOUS, partial(Flow, hidden=(8,))), True),
    "bins_mode": (trained(CONTINUOUS, CategoricalBins), False),
    "deterministic": (trained(EDGES, Deterministic), False),
    "explores": (trained(CONTINUOUS, Deterministic), True),
    "annealed": (trained(CONTINUOUS, heads.AnnealedGaussian), True),
    "encoded": (trained(CONTINUOUS, heads.Gaussian, network=partial(Encoded, encoder=NORMED, trunk=SMALL)), False),
}  # fmt: skip
QUICK = {
    ("best_of", ".npz"), ("mixture", ".npz"), ("flow", ".npz"),
}  # fmt: skip
EVERY = [
    pytest.param(name, suffix, marks=() if (name, suffix) in QUICK else pytest.mark.slow)
    for name in CASES
    for suffix in formats.FORMATS
]


@pytest.mark.parametrize(("name", "suffix"), EVERY)
def test_a_file_acts_as_the_policy(name: str, suffix: str, tmp_path: Path) -> None:
    (policy, sample), path = CASES[name], tmp_path / f"policy{suffix}"
    if suffix == ".onnx":
        pytest.importorskip("onnxruntime")
    # It is verified inside; here a mistake of that would show, too.
    export(policy, path, sample)
    obs = np.random.default_rng(1).normal(size=(200, policy.spec.obs_dim)).astype(np.float32)
    action, noise = formats.FORMATS[suffix].acting(path.read_bytes())(obs)
    assert (noise is not None) == (sample or policy.judge is not None)
    own = policy.act(torch.as_tensor(obs), None if noise is None else torch.as_tensor(noise)).numpy()
    assert action.dtype == own.dtype
    assert action.shape == own.shape
    assert np.isclose(action, own, atol=1e-4).reshape(200, -1).all(1).mean() > 0.99
    if noise is not None:
        assert abs(noise.mean()) < 0.1
        assert abs(noise.std() - 1) < 0.1
    if not policy.spec.discrete:
        assert (action.astype(float) >= policy.spec.action_low).all()
        assert (action.astype(float) <= policy.spec.action_high).all()


def alone(program: str, path: Path, without: str) -> str:
    """What a program of the examples prints in an interpreter that cannot import some packages."""
    code = (
        f"import sys, runpy; sys.modules.update(dict.fromkeys({without!r}.split())); sys.argv[1:] = [{str(path)!r}]\n"
        f"names = runpy.run_path({str(EXAMPLES / program)!r})\n"
        "if 'act' in names: import numpy as np; "
        "print(names['act'](dict(np.load(sys.argv[1])), np.zeros((2, 3), np.float32)))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, cwd=path.parent, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("program", "without"),
    [
        ("with_numpy.py", "awr_exp torch onnxruntime"),
        pytest.param("with_onnxruntime.py", "awr_exp torch onnx", marks=pytest.mark.long),
        pytest.param("with_torch.py", "awr_exp onnxruntime", marks=pytest.mark.long),
    ],
)
def test_ten_lines_load_it_without_us(program: str, without: str, tmp_path: Path) -> None:
    if program == "with_onnxruntime.py":
        pytest.importorskip("onnxruntime")
    suffix = {"with_numpy.py": ".npz", "with_torch.py": ".pt2", "with_onnxruntime.py": ".onnx"}[program]
    (policy, _), path = CASES["conditioned"], tmp_path / f"policy{suffix}"
    export(policy, path)
    printed = alone(program, path, without)
    found = [float(number) for number in re.findall(r"-?\d+\.\d*(?:e-?\d+)?", printed)]
    np.testing.assert_allclose(found, policy(np.zeros((2, 3))).flatten(), atol=1e-3)


def test_the_loader_for_numpy_is_ten_lines_and_calls_what_ours_calls() -> None:
    text = (EXAMPLES / "with_numpy.py").read_text()
    code = [line for line in text.splitlines() if line and not line.startswith('"""')]
    assert len(code) == 10
    ours = Path(of_numpy.__file__).read_text().splitlines()
    assert {line for line in code if line.startswith(("FEW", "MAY"))} <= {*ours}
    # Nothing of a file can open another one, or be taken for code.
    assert not {"load", "save", "fromfile", "__getattr__", "vectorize"} & of_numpy.MAY.keys()


def test_a_file_says_what_it_is(tmp_path: Path) -> None:
    export(CASES["parts"][0], tmp_path / "policy.npz", sample=True)
    file = np.load(tmp_path / "policy.npz")
    about = json.loads(str(file["about"]))
    assert about["source"] == "runs/1, update 7"
    assert about["obs"] == "float32 [B, 4]: agent [2], goal [2], in this order"
    assert about["action"] == "int64 [B], a sample"
    assert Spec.from_json(json.loads(about["spec"])) == PARTS


class Gelu(heads.Gaussian):
    """A head that NumPy cannot follow."""

    def act(self, outputs: Tensor, extra: Any, noise: Tensor | None) -> Tensor:
        return torch.erf(super().act(outputs, extra, noise))


class Branching(heads.Gaussian):
    """A head that is no program of tensors."""

    def act(self, outputs: Tensor, extra: Any, noise: Tensor | None) -> Tensor:
        return outputs if float(outputs.sum()) > 0 else -outputs


def test_a_head_of_ones_own_is_exported_if_its_operators_are_known(tmp_path: Path) -> None:
    own = trained(CONTINUOUS, Gelu)
    export(own, tmp_path / "policy.pt2")
    with pytest.raises(
        UserError, match=r"policy\.npz cannot hold this policy: NumPy has no erf: choose \.onnx or \.pt2$"
    ):
        export(own, tmp_path / "policy.npz")
    with pytest.raises(UserError, match=r"b\.pt2 cannot hold this policy: its network or its head is no program of"):
        export(trained(CONTINUOUS, Branching), tmp_path / "b.pt2")
    assert [path.name for path in tmp_path.iterdir()] == ["policy.pt2"]


def test_a_file_that_acts_otherwise_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = of_numpy.acting

    def wrong(content: bytes) -> Any:
        act = before(content)
        return lambda obs: (act(obs)[0] + 1e-2 * (np.arange(len(obs)) % 100 == 7)[:, None].astype(np.float32), None)

    monkeypatch.setattr(of_numpy, "acting", wrong)
    with pytest.raises(UserError, match="was not kept: on 10 of 1000 observations it would act otherwise"):
        export(trained(CONTINUOUS, heads.Gaussian), tmp_path / "policy.npz")
    assert not list(tmp_path.iterdir())


def test_what_a_full_disk_refuses_leaves_nothing(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        # As a disk would that has so much room.
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, before[1]))
        with pytest.raises(UserError, match=r"policy\.npz cannot be written: File too large$"):
            export(trained(CONTINUOUS, heads.Gaussian), tmp_path / "policy.npz")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["policy.txt"], "policy.txt is of no kind that a policy can be exported to: end it with one of .onnx for"),
        (["policy"], "policy is of no kind that a policy can be exported to"),
        (["there.npz"], "there.npz is there already: choose another name, or delete it"),
        (["no/policy.npz"], "no/policy.npz cannot be written: there is no folder no"),
        (["policy.npz"], "run is neither the folder of a run with a checkpoint nor a checkpoint file"),
        (["policy.npz", "polcy=best"], "there is no setting 'polcy=best': NAME=VALUE is of which, best_of, sample,"),
        (["policy.npz", "which=first"], 'which is "first"; it must be one of best, latest'),
        (["policy.npz", "best_of=0"], "best_of is 0; it must be a whole number of at least 1, or null"),
        (["policy.npz", "sample=true", "best_of=4"], "sample=true takes one sample, and best_of=4 the best of several"),
        (["policy.npz", "sample=perhaps"], 'sample is "perhaps"; it must be true or false'),
    ],
)  # fmt: skip
def test_a_mistake_is_answered_in_one_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.npz").write_text("mine")
    with pytest.raises(SystemExit) as ended:
        main(["run", *arguments])
    assert str(ended.value).startswith(f"error: {message}")
    assert "\n" not in str(ended.value)
    assert [path.name for path in tmp_path.iterdir()] == ["there.npz"]
    assert Path("there.npz").read_text() == "mine"


def test_the_extra_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"policy\.onnx needs onnxruntime, .* pip install 'awr-exp\[onnx\]'$"):
        formats.chosen(tmp_path / "policy.onnx")


def test_a_run_is_exported_by_command(
    cli: Cli, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(finished), str(tmp_path / "policy.npz"), "which=latest"])
    assert capsys.readouterr().out.startswith(f"{tmp_path}/policy.npz: TrainedPolicy({finished}, update ")
    policy, file = awr_exp.load(finished, which="latest"), (tmp_path / "policy.npz").read_bytes()
    obs = np.array([[0.6, 0.8, -2.0]], np.float32)
    np.testing.assert_allclose(of_numpy.acting(file)(obs)[0], policy(obs), rtol=1e-5)
    damaged = next((finished / "checkpoint").glob("best*"))
    damaged.write_bytes(damaged.read_bytes()[:-8])
    done = cli("export", str(damaged), "other.npz")
    assert done.returncode == 1
    assert re.fullmatch(f"error: checkpoint {damaged} cannot be read: .*\n", done.stdout)
    assert not (tmp_path / "other.npz").exists()


def test_a_policy_is_a_module_of_torch() -> None:
    policy, other = (trained(CONTINUOUS, heads.Gaussian, seed=seed) for seed in (0, 1))
    obs = torch.randn(5, 3, generator=torch.Generator().manual_seed(2))
    action = policy(obs.requires_grad_())
    assert torch.equal(action, torch.as_tensor(policy(obs.detach().numpy())))
    assert torch.equal(policy(obs[0]), action[0])
    assert torch.autograd.grad(action.sum(), obs)[0].abs().sum() > 0
    assert set(policy.state_dict()) == {"theta", "mean", "std", "limit", "low", "high", "starts"}
    other.load_state_dict(policy.state_dict())
    assert torch.equal(other(obs), action)
    double = copy.deepcopy(policy).double()
    assert double(obs).dtype == torch.float64
    torch.testing.assert_close(double(obs).float(), action)
    file = io.BytesIO()
    torch.save(policy, file)
    assert torch.equal(torch.load(io.BytesIO(file.getvalue()), weights_only=False)(obs), action)
    heard: list[Any] = []
    policy.register_forward_hook(lambda module, given, made: heard.append(made))
    policy(obs)
    assert len(heard) == 1
    best, drawn = CASES["best_of"][0], policy(obs, deterministic=False)
    assert not torch.equal(drawn, action)
    assert set(best(obs).tolist()) <= {4, 5, 6}
    assert "MLP of 59 parameters, Categorical, the best of 5 by Q; Spec(" in repr(best)
