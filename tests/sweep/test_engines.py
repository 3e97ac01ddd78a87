"""Other processes and machines: the published launchers, and groups shipped through their engines."""

import os
import re
import shutil
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from awr_exp import results
from awr_exp.sweep.engines import _result
from awr_exp.sweep.group import Group, divided
from awr_exp.training import checkpoint
from tests.conftest import SMALL, Cli, start, trainer_of

TWO = [*SMALL, "env=none", "agent.beta=0.1,1.0"]
RAY = shutil.which("ray", path=str(Path(sys.executable).parent))


def statuses(sweep: Path) -> list[str]:
    return [run.status for run in results.runs(sweep)]


def test_groups_are_divided_evenly() -> None:
    group = list(range(10))
    assert [len(piece) for piece in divided([group], 1, None)] == [10]
    assert sorted(len(piece) for piece in divided([group], 3, None)) == [3, 3, 4]
    assert [member for piece in divided([group], 3, None) for member in piece] == group
    assert [len(piece) for piece in divided([group], 1, 4)] == [3, 4, 3]
    assert [len(piece) for piece in divided([group, [10, 11]], 2, None)] == [5, 5, 2]
    assert divided([], 2, None) == []


@pytest.mark.parametrize(
    ("package", "chosen"),
    [
        pytest.param(
            "hydra_plugins.hydra_joblib_launcher",
            ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
            marks=pytest.mark.slow,
        ),
        pytest.param("joblib", ["hydra.launcher.via=joblib", "hydra.launcher.workers=2"], marks=pytest.mark.slow),
        pytest.param(
            "hydra_plugins.hydra_submitit_launcher", ["hydra/launcher=submitit_local"], marks=pytest.mark.slow
        ),
        pytest.param(
            "submitit", ["hydra.launcher.via=submitit_local", "hydra.launcher.workers=2"], marks=pytest.mark.slow
        ),
    ],
    ids=["joblib", "groups by joblib", "submitit_local", "groups by submitit_local"],
)
def test_an_engine_on_this_machine(cli: Cli, tmp_path: Path, package: str, chosen: list[str]) -> None:
    if find_spec(package.split(".")[0]) is None or find_spec(package) is None:
        pytest.skip(f"needs {package}")
    done = cli("-m", *TWO, f"hydra.sweep.dir={tmp_path}/sweep", *chosen)
    assert done.returncode == 0, done.stdout
    assert statuses(tmp_path / "sweep") == ["finished", "finished"]
    # Each has a log of its own, written where it was trained.
    assert all("s of training" in (tmp_path / "sweep" / job / "train.log").read_text() for job in "01")


@pytest.mark.skipif(RAY is None, reason="needs Ray")
@pytest.mark.parametrize("chosen", ["hydra.launcher.via=ray", "hydra/launcher=ray"])
def test_a_ray_cluster_of_two_workers(cli: Cli, tmp_path: Path, chosen: str) -> None:
    cluster = [str(RAY), "start", "--head", "--num-cpus=2", "--include-dashboard=false"]
    subprocess.run(cluster, check=True, capture_output=True)
    own = {
        "hydra.launcher.via=ray": ["hydra.launcher.workers=2", "+hydra.launcher.options.init.address=auto"],
        # The plugin names a size of the object store, which a cluster that runs already has.
        "hydra/launcher=ray": [
            "hydra.launcher.ray.init.address=auto",
            "+hydra.launcher.ray.init.object_store_memory=null",
        ],
    }[chosen]
    try:
        done = cli("-m", *TWO, f"hydra.sweep.dir={tmp_path}/sweep", chosen, *own)
    finally:
        subprocess.run([str(RAY), "stop", "--force"], check=False, capture_output=True)
    assert done.returncode == 0, done.stdout
    assert statuses(tmp_path / "sweep") == ["finished", "finished"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["hydra.launcher.via=nothing"], r"^error: hydra.launcher.via is nothing; it must be one of joblib, "),
        (["hydra.launcher.via=ray", "+hydra.launcher.options.init.address=127.0.0.1:1"], r"^error: .*\b[rR]ay\b.*"),
        (["hydra.launcher.via=submitit_slurm"], r"^error: hydra.launcher.via=?.*(srun|needs submitit)"),
        (["hydra/launcher=rya"], "^error: hydra/launcher=rya: choose hydra/launcher=<one of basic, fused, "),
        pytest.param(
            ["hydra/launcher=ray"],
            r"\Aerror: hydra/launcher=ray is not installed: pip install 'awr-exp\[ray\]'\n\Z",
            marks=pytest.mark.skipif(RAY is not None, reason="Ray is installed"),
        ),
    ],
)
def test_an_engine_that_is_not_there(cli: Cli, tmp_path: Path, arguments: list[str], message: str) -> None:
    done = cli("-m", *TWO, f"hydra.sweep.dir={tmp_path}/sweep", *arguments)
    assert done.returncode == 1
    assert re.search(message, done.stdout, re.MULTILINE), done.stdout
    assert "Traceback" not in done.stdout
    assert "sweep.resume" not in done.stdout
    assert not list(tmp_path.glob("sweep/*/checkpoint"))


@pytest.mark.slow
def test_a_slurm_job_is_described_to_the_scheduler(cli: Cli, tmp_path: Path) -> None:
    """A stand-in for sbatch keeps what it is given: the group's parameters reach the scheduler."""
    pytest.importorskip("submitit")
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "srun").write_text("#!/bin/sh\n")
    (tools / "sbatch").write_text(f'#!/bin/sh\ncp "$1" {tmp_path}/script\necho refused >&2\nexit 1\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)
    options = ["+hydra.launcher.options.slurm_partition=short", "+hydra.launcher.options.timeout_min=7"]
    path = f"{tools}:{os.environ['PATH']}"
    done = cli("-m", *TWO, "hydra.launcher.via=submitit_slurm", *options, PATH=path)
    script = (tmp_path / "script").read_text()
    assert "--partition=short" in script
    assert "--time=7" in script
    assert "--signal=USR2@90" in script
    assert done.returncode == 1
    assert "refused" in done.stdout
    assert "Traceback" not in done.stdout


@pytest.mark.slow
def test_a_killed_worker_costs_the_way_since_the_last_checkpoint(tmp_path: Path, datasets: Path) -> None:
    pytest.importorskip("joblib")
    sweep = tmp_path / "sweep"
    options = [*TWO, "trainer.updates=1500", "trainer.checkpoint_interval=50", "trainer.report_interval=60"]
    engine = ["hydra.launcher.via=joblib", "hydra.launcher.workers=2"]
    process = start(tmp_path, datasets, "-m", *options, f"hydra.sweep.dir={sweep}", *engine)
    os.kill(trainer_of(process, sweep / "0"), signal.SIGKILL)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert "a worker process was lost" in output
    assert statuses(sweep) == ["finished", "finished"]
    log = (sweep / "0" / "train.log").read_text()
    assert re.search(r"going on from update [1-9]", log), log


@pytest.mark.slow
def test_a_stopped_worker_costs_its_own_group(tmp_path: Path, datasets: Path) -> None:
    pytest.importorskip("joblib")
    sweep = tmp_path / "sweep"
    command = [*TWO, f"hydra.sweep.dir={sweep}", "hydra.launcher.via=joblib", "hydra.launcher.workers=2"]
    process = start(tmp_path, datasets, "-m", *command, "trainer.updates=1500", "trainer.report_interval=20")
    os.kill(trainer_of(process, sweep / "0"), signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1, output
    assert statuses(sweep) == ["stopped", "finished"]
    assert "failed: its process was stopped with exit code 143: the same command with" in output


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 4])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_sweep_stops_its_workers_which_save(
    tmp_path: Path, datasets: Path, cli: Cli, number: int, workers: int
) -> None:
    """Of three groups two train, and the third is not begun; or all, beside a worker that has none."""
    pytest.importorskip("joblib")
    sweep = tmp_path / "sweep"
    command = [
        *SMALL, "env=none", "agent.beta=0.1,1.0,2.0", "hydra.launcher.max_members=1", "hydra.launcher.via=joblib",
        f"hydra.launcher.workers={workers}", "trainer.updates=3000", "trainer.report_interval=20",
        "trainer.checkpoint_interval=10000",
    ]  # fmt: skip
    process = start(tmp_path, datasets, "-m", *command, f"hydra.sweep.dir={sweep}", session=True)
    begun = "01" if workers == 2 else "012"
    trainers = [trainer_of(process, sweep / name) for name in begun]
    if number == signal.SIGTERM:
        process.send_signal(number)
    else:
        # As a terminal does.
        os.killpg(process.pid, number)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + number, output
    assert "Traceback" not in output
    assert f"sweep.resume={sweep}" in output
    assert not any(Path(f"/proc/{trainer}").exists() for trainer in trainers)
    assert statuses(sweep)[: len(begun)] == ["stopped"] * len(begun)
    found = [checkpoint.latest(sweep / name) for name in begun]
    assert all(one is not None and one[1]["update"] > 0 for one in found)
    assert (sweep / "2" / "metrics.jsonl").exists() == (workers == 4)
    done = cli("-m", *command, f"sweep.resume={sweep}")
    assert done.returncode == 0, done.stdout
    assert statuses(sweep) == ["finished"] * 3


@pytest.mark.slow
def test_a_preempted_job_is_queued_again_and_goes_on(tmp_path: Path, datasets: Path) -> None:
    pytest.importorskip("submitit")
    sweep = tmp_path / "sweep"
    options = [*TWO, "trainer.updates=1500", "trainer.checkpoint_interval=10000", "trainer.report_interval=20"]
    process = start(tmp_path, datasets, "-m", *options, f"hydra.sweep.dir={sweep}", "hydra.launcher.via=submitit_local")
    os.kill(trainer_of(process, sweep / "0"), signal.SIGUSR2)
    output, _ = process.communicate(timeout=120)
    logs = "\n".join(path.read_text() for path in (sweep / ".submitit").rglob("*_log.*"))
    assert "stopped by signal" in (sweep / "0" / "train.log").read_text(), logs
    assert process.returncode == 0, output + logs
    assert statuses(sweep) == ["finished", "finished"]


def test_a_lost_process_costs_what_was_not_finished(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name / ".hydra").mkdir(parents=True)
    done = {"status": "finished", "error": None, "update": 3, "metrics": {"eval/return_mean": 2.0}}
    results.write(tmp_path / "a", done)
    group = Group([{}, {}], [tmp_path / "a", tmp_path / "b"], ["a", "b"], None, False)  # type: ignore[arg-type]

    def fetch() -> list[results.Outcome]:
        raise MemoryError("killed\nby the kernel")

    finished, lost = _result(fetch, group, tmp_path)
    assert finished.error is None
    assert finished.metrics == {"eval/return_mean": 2.0}
    assert re.search(r"lost \(MemoryError: killed\): .*sweep.resume=", str(lost.error))
