"""Training on data sets of any size: `python benchmarks/large_data.py wide --gigabytes 50`.

The data set is a sparse file of rows, of which only the first episode was ever written: the system makes up the rest
when it is read. With --filled all rows are random numbers. Each round is a whole command line in a process of its own;
`--compare` alternates rows in memory with the same rows mapped from the file. What is made is deleted in the end.
"""

import argparse
import json
import os
import runpy
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from gymnasium import spaces
from minari.serialization import serialize_space
from side_by_side import ratio

from awr_exp.data import cache
from awr_exp.data.mapped import mapped
from awr_exp.data.schema import STORED, Schema
from awr_exp.envs.spaces import spec_of
from awr_exp.training.rows import read
from awr_exp.types import Spec

ID, EPISODE, PIECE = "benchmark/large-v0", 1_000, 20_000
SPACES: dict[str, tuple[spaces.Space, spaces.Space]] = {
    "narrow": (spaces.Box(-np.inf, np.inf, (17,)), spaces.Box(-1, 1, (4,))),
    "wide": (spaces.Box(-np.inf, np.inf, (500,)), spaces.Box(-1, 1, (6,))),
    "images": (spaces.Box(0, 255, (84, 84), np.uint8), spaces.Discrete(6)),
}


def make(kind: str, gigabytes: float, filled: bool, root: Path) -> None:
    """Write the data set below `root`: whole episodes, as many as make up the size."""
    spec = spec_of(ID, *SPACES[kind])
    width = Schema(spec, STORED).width
    episodes = max(2, round(gigabytes * 1e9 / (4 * width * (EPISODE + 1))))
    rows, folder = episodes * (EPISODE + 1), root / ID / "data"
    folder.mkdir(parents=True)
    observation, action = map(serialize_space, SPACES[kind])
    metadata = {"observation_space": observation, "action_space": action, "total_episodes": episodes}
    (folder / "metadata.json").write_text(json.dumps(metadata | {"data_format": "hdf5"}))
    h5py.File(folder / "main_data.hdf5", "w").close()
    draft = cache.drafts(folder)[0]
    draft.parent.mkdir()
    with draft.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (rows, width)})
        begin, rng = file.tell(), np.random.default_rng(0)
        for start in range(0, rows if filled else EPISODE + 1, PIECE):
            count = min(PIECE, rows - start if filled else EPISODE + 1)
            file.write(random_rows(spec, start, count, rng).numpy().data)
        file.truncate(begin + 4 * rows * width)
    lengths, returns = torch.full((episodes,), EPISODE), np.zeros(episodes)
    made_of = {folder / name: cache.state(folder / name) for name in ("main_data.hdf5", "metadata.json")}
    cache.write(folder, made_of, cache.Flat(mapped(draft), lengths, returns, spec, []), draft)


def random_rows(spec: Spec, start: int, count: int, rng: np.random.Generator) -> torch.Tensor:
    """Rows from `start` on, of episodes that are truncated in their last step and end with a final observation."""
    schema = Schema(spec, STORED)
    packed = torch.zeros(count, schema.width)
    for view in schema.views(packed, "obs"):
        byte = view.dtype == torch.uint8
        numbers = rng.integers(0, 256, view.shape, np.uint8) if byte else rng.standard_normal(view.shape, np.float32)
        view.copy_(torch.from_numpy(numbers))
    action = rng.integers(0, spec.counts[0], count) if spec.discrete else rng.uniform(-1, 1, (count, spec.action_dim))
    schema.view(packed, "action").copy_(torch.from_numpy(np.asarray(action, np.float32)).view(count, -1))
    schema.view(packed, "reward").copy_(torch.from_numpy(rng.standard_normal((count, 1), np.float32)))
    place = (start + torch.arange(count)) % (EPISODE + 1)
    schema.view(packed, "truncated")[place == EPISODE - 1] = 1
    for name in STORED[1:]:
        schema.view(packed, name)[place == EPISODE] = 0
    return packed


def child(place: str, report: str, command: list[str]) -> None:
    """Run a command line here, with rows mapped or in memory, and note how long it took and what it needed."""
    from awr_exp.data import room
    from awr_exp.training.learner import Learner

    if place != "auto":
        cache.fits = room.fits = lambda size: place == "memory"
    peaks, begun, first = {"RssAnon": 0, "VmRSS": 0}, time.perf_counter(), []
    train = Learner.train

    def noted(self: Learner, goal: int) -> None:
        first.append(time.perf_counter() - begun)
        train(self, goal)

    def watch() -> None:
        while True:
            lines = Path("/proc/self/status").read_text().splitlines()
            for name, _, value in (line.partition(":") for line in lines):
                if name in peaks:
                    peaks[name] = max(peaks[name], int(value.split()[0]))
            time.sleep(0.02)

    Learner.train = noted  # type: ignore[method-assign]
    threading.Thread(target=watch, daemon=True).start()
    sys.argv = ["awr-exp", *command]
    with suppress(SystemExit):
        runpy.run_module("awr_exp.main", run_name="__main__")
    found = {name: value / 1e6 * 1.024 for name, value in peaks.items()}
    Path(report).write_text(json.dumps(found | {"start-up": first[0], "seconds": time.perf_counter() - begun}))


def run(options: argparse.Namespace, place: str, root: Path, number: int) -> dict[str, float]:
    """One round: updates a second, start-up in seconds, and peaks of memory in GB."""
    folder, report = root / f"run-{number}", root / "report.json"
    command = [f"dataset.id={ID}", "dataset=minari", "env=none", "logger=jsonl", "network.hidden=[64,64]"]
    command += [f"trainer.updates={options.updates}", f"trainer.report_interval={options.updates // 2}"]
    command += [f"trainer.eval_interval={options.updates}", f"hydra.run.dir={folder}", *options.settings]
    environment = os.environ | {"MINARI_DATASETS_PATH": str(root), "WANDB_MODE": "disabled"}
    program = [sys.executable, __file__, "--child", place, str(report), *command]
    subprocess.run(program, check=True, env=environment, stdout=None if options.loud else subprocess.DEVNULL)
    # The first half warms the caches up.
    speed = [row["value"] for row in read(folder) if row["name"] == "train/updates_per_second"][-1]
    return {"updates/s": speed} | json.loads(report.read_text())


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], sys.argv[3], sys.argv[4:])
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=SPACES)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--updates", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--filled", action="store_true", help="write all rows, as random numbers")
    parser.add_argument("--cold", action="store_true", help="forget the file before each round")
    parser.add_argument("--compare", action="store_true", help="the same rows in memory, too")
    parser.add_argument("--loud", action="store_true", help="show what the runs print")
    parser.add_argument("--place", type=Path, help="a folder of a disk with room")
    parser.add_argument("settings", nargs="*", help="of the runs, such as advantage=td")
    options = parser.parse_intermixed_args()
    with tempfile.TemporaryDirectory(dir=options.place) as work:
        root = Path(work)
        make(options.kind, options.gigabytes, options.filled, root)
        rows = root / ID / "data" / ".awr_exp_cache" / "flat.npy"
        print(f"{options.kind}: {rows.stat().st_size / 1e9:.1f} GB, {rows.stat().st_blocks * 512 / 1e9:.1f} on disk")
        found: dict[str, list[dict[str, Any]]] = {}
        for number in range(options.rounds):
            for place in ("memory", "mapped") if options.compare else ("auto",):
                if options.cold:
                    forget(rows)
                found.setdefault(place, []).append(run(options, place, root, 2 * number + (place == "mapped")))
                print(place, {name: round(value, 2) for name, value in found[place][-1].items()}, flush=True)
        for place, rounds in found.items():
            medians = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
            print("medians", place, {name: round(value, 2) for name, value in medians.items()})
        if options.compare:
            speeds = [[one["updates/s"] for one in found[place]] for place in ("mapped", "memory")]
            print(f"mapped / memory: {ratio(*speeds):.2f}")


def forget(file: Path) -> None:
    """Have the system forget what it keeps of a file in memory."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


if __name__ == "__main__":
    main()
