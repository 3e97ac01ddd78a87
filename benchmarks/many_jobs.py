"""What a job of a large sweep takes beside its training: to be composed and checked, to be started, and to be closed.

python benchmarks/many_jobs.py --jobs 200
"""

import argparse
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

OPTIONS = ["trainer.updates=2", "trainer.eval_episodes=1", "threads=1", "agent.beta=0.05,0.1,0.3,1.0"]
COMPOSED, TRAINED = "jobs to train:", re.compile(r"([\d.]+) s of training")


def measured(jobs: int, options: Sequence[str]) -> dict[str, float]:
    """Seconds of each part of a sweep of so many jobs, and of all cores together."""
    seconds, begun, before = dict[str, float](), time.perf_counter(), _cores()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "awr_exp.main", "-m", *OPTIONS, f"seed=range({jobs // 4})", *options]
        process = subprocess.Popen([*command, f"hydra.sweep.dir={folder}/sweep"], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for line in process.stdout:
            now = time.perf_counter()
            if line.startswith(COMPOSED):
                seconds["compose, check and make folders"], begun = now - begun, now
            elif found := TRAINED.match(line):
                seconds["start"], seconds["train"] = now - begun - float(found[1]), float(found[1])
                begun = now
        if process.wait():
            raise SystemExit("the sweep failed")
    return seconds | {"close, table and report": time.perf_counter() - begun, "all, of all cores": _cores() - before}


def _cores() -> float:
    """Seconds that the processors have worked for the commands so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=200, help="of the larger sweep; the smaller has four")
    options, others = parser.parse_known_args()
    few, many = (measured(jobs, others) for jobs in (4, options.jobs))
    print(f"{'':32} {'4 jobs':>8} {options.jobs:>4} jobs  {'a job':>9}")
    for name, seconds in many.items():
        # What a single command takes anyway, such as imports, is no job's.
        each = (seconds - few[name]) / (options.jobs - 4)
        print(f"{name:32} {few[name]:7.1f}s {seconds:7.1f}s {1000 * each:7.0f}ms")


if __name__ == "__main__":
    main()
