"""The report: its statistics against closed forms, its reading of whole and broken sweeps, its page in a browser."""

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from awr_exp.errors import UserError
from awr_exp.report import page, runs, statistics, verdict

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
Values = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=12).map(np.array)


def make_run(folder: Path, beta: float, seed: int, score: float, data: str = "a/b-v0", **more: Any) -> None:
    """A run's result files, as if it had been trained."""
    config: dict[str, Any] = {
        "agent": {"_target_": "awr_exp.agents.awr.AWR", "beta": beta, "network": "${network}"},
        "network": {"hidden": [8, 8]},
        "dataset": {"_target_": "awr_exp.data.minari.load", "id": data},
        "logger": {"wandb": {"name": None}},
        "seed": seed,
    } | more
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump([f"agent.beta={beta}", f"seed={seed}"]))
    rows = [(0, "dataset/return_mean", 10.0)]
    for update in (50, 100):
        rows += [(update, "train/ess", 0.5), (update, "train/clipped", 0.1)]
        rows += [(update, "eval/return_mean", score * update / 100), (update, "eval/return_std", 1.0)]
    lines = [json.dumps({"update": u, "env_steps": 0, "name": name, "value": value}) for u, name, value in rows]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    metrics = {"eval/return_mean": score}
    result = {"status": "finished", "error": None, "update": 100, "metrics": metrics, "returns": [score - 1, score + 1]}
    (folder / "result.json").write_text(json.dumps(result))


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Beta 0.3 is best beyond doubt, the middle one of three; four seeds each."""
    folder = tmp_path / "sweep"
    for number, (beta, seed) in enumerate((beta, seed) for beta in (0.1, 0.3, 1.0) for seed in range(4)):
        make_run(folder / str(number), beta, seed, {0.1: 20.0, 0.3: 60.0, 1.0: 40.0}[beta] + seed)
    return folder


def test_the_answer_and_how_sure_it_is(sweep: Path) -> None:
    _, answer = page.write([sweep], sweep)
    assert answer.startswith("Use beta=0.3 (interquartile mean of the return 61.5, 95% interval 60")
    assert "Fairly sure" in answer
    assert "smallest" not in answer


def test_an_answer_that_is_not_sure_says_so(tmp_path: Path) -> None:
    for number in range(8):
        make_run(tmp_path / str(number), 0.1 if number < 4 else 1.0, number % 4, float(number % 4) + number / 100)
    assert "Not sure: these runs cannot tell it from beta=0.1" in page.write([tmp_path], tmp_path)[1]
    make_run(tmp_path / "8", 3.0, 0, 100.0)
    assert "Not sure at all" in page.write([tmp_path], tmp_path)[1]


def test_a_best_beta_at_the_edge_asks_for_more(sweep: Path) -> None:
    for seed in range(4):
        make_run(sweep / str(12 + seed), 3.0, seed, 90.0 + seed)
    assert page.write([sweep], sweep)[1].endswith("It is the largest beta tried: try larger ones.")


def test_tables_have_every_run(sweep: Path) -> None:
    page.write([sweep], sweep)
    with (sweep / "report.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    assert {row["agent.beta"] for row in rows} == {"0.1", "0.3", "1.0"}
    assert float(rows[0]["eval/return_mean"]) == 20.0
    assert {path.name for path in (sweep / "report").iterdir()} == {
        "beta.png", "curves.png", "health.png", "profile.png", "tuning.png",
    }  # fmt: skip


def test_broken_and_running_sweeps(sweep: Path) -> None:
    torn = sweep / "0" / "metrics.jsonl"
    torn.write_bytes(torn.read_bytes()[:-9] + b"\xff\x00")
    (sweep / "1" / "metrics.jsonl").unlink()
    (sweep / "2" / "result.json").write_text("{not json")
    (sweep / "3" / ".hydra" / "config.yaml").write_text(": [")
    (sweep / "4" / "result.json").unlink()
    failed = {"status": "failed", "error": "<b>diverged</b>", "update": 3, "metrics": {}}
    (sweep / "5" / "result.json").write_text(json.dumps(failed))
    path, answer = page.write([sweep], sweep)
    assert answer.startswith("Use beta=0.3")
    text = path.read_text()
    assert "12 runs: 9 finished, 2 unfinished, 1 failed; 1 without an evaluation" in text
    assert "&lt;b&gt;diverged" in text
    assert "<b>diverged" not in text


def test_several_tasks_are_compared_by_normalised_scores(tmp_path: Path) -> None:
    for number, (beta, data) in enumerate((b, d) for b in (0.1, 1.0) for d in ("a/b-v0", "c/d-v0") for _ in range(3)):
        folder = tmp_path / str(number)
        make_run(folder, beta, number % 3, 1000.0 if data == "c/d-v0" else 1.0, data)
        row = {"update": 100, "env_steps": 0, "name": "eval/normalized_score", "value": beta + number / 1000}
        with (folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
    found, kind = runs.load([tmp_path])
    assert kind == "normalised score"
    assert {result.task for result in found} == {"a/b-v0", "c/d-v0"}
    assert page.write([tmp_path], tmp_path)[1].startswith("Use beta=1.0")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "holds no results: give the folder of a run or of a sweep"),
        (lambda folder: folder.mkdir(), "holds no results"),
        (lambda folder: (folder / ".hydra").mkdir(parents=True), "holds no evaluation yet"),
    ],
)
def test_a_folder_without_results(tmp_path: Path, make: Any, message: str) -> None:
    make(tmp_path / "folder")
    done = subprocess.run(
        [sys.executable, "-m", "awr_exp.report", str(tmp_path / "folder")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert re.fullmatch(rf"error: \S+ {message}.*\n", done.stderr)


def test_no_permission_to_write(sweep: Path) -> None:
    with pytest.raises(UserError, match=r"/proc/nothing cannot be written.*--out"):
        page.write([sweep], Path("/proc/nothing"))


@pytest.mark.skipif(BROWSER is None, reason="needs chromium")
def test_the_page_opens_from_disk_and_sorts(sweep: Path, tmp_path: Path) -> None:
    path, _ = page.write([sweep], sweep)
    text = path.read_text()
    assert not re.search(r"(src|href)=\"?(https?:)?//", text)
    # A click on the heading "return_mean" of the last table, as a user would, then a second one.
    orders = []
    for clicks in (0, 1, 2):
        script = """<script>const heads = [...document.querySelectorAll("table:last-of-type th")]
          .filter((head) => head.textContent === "return_mean");
          for (let i = 0; i < CLICKS; i++) heads[0].click();
          const loaded = [...document.querySelectorAll("img")].every((img) => img.naturalWidth > 200);
          document.title = loaded + "";</script>"""
        copy = tmp_path / f"clicked{clicks}.html"
        copy.write_text(text.replace("</body>", script.replace("CLICKS", str(clicks)) + "</body>"))
        done = subprocess.run(
            [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", f"file://{copy}"],
            capture_output=True, text=True, check=True, timeout=120,
        )  # fmt: skip
        table = done.stdout.rpartition("<tbody>")[2]
        orders.append([float(row.split("</td>")[5].rpartition(">")[2]) for row in table.split("</tr>")[:-1]])
    assert "<title>true</title>" in done.stdout, "a picture did not load"
    assert orders[0] == sorted(orders[0], reverse=True)
    assert orders[1] == sorted(orders[0])
    assert orders[2] == orders[0]


@given(Values)
def test_the_interquartile_mean_lies_between_the_quartiles(values: Any) -> None:
    middle = float(statistics.iqm(values))
    assert np.quantile(values, 0.25, method="lower") - 1e-9 <= middle
    assert middle <= np.quantile(values, 0.75, method="higher") + 1e-9


def test_statistics_by_hand() -> None:
    assert statistics.iqm(np.array([0.0, 1.0, 2.0, 100.0])) == 1.5
    same = [np.array([3.0, 3.0])]
    assert statistics.bootstrap(same) == (3.0, 3.0)
    value, edges = statistics.probability_of_improvement([np.array([2.0, 3.0])], [np.array([1.0, 2.0])])
    assert value == pytest.approx((0.5 + 1 + 1 + 1) / 4)
    assert edges[0] <= value <= edges[1]
    share, low, high = statistics.profile([np.array([1.0, 2.0, 3.0, 4.0])], np.array([0.0, 2.5, 5.0]))
    assert share.tolist() == [1.0, 0.5, 0.0]
    assert (low <= share).all()
    assert (share <= high).all()


def test_the_bootstrap_agrees_with_the_normal_interval() -> None:
    values = np.random.default_rng(0).normal(5, 2, 400)
    low, high = statistics.bootstrap([values], lambda v: v.mean(-1))
    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.05)


def test_tuning_finds_the_best_policy_in_the_end() -> None:
    rng = np.random.default_rng(0)
    policies = [rng.normal(mean, 0.5, 50) for mean in (0.0, 1.0, 5.0)]
    mean, low, high = statistics.tuning_budget(policies, 80)
    everyone = np.mean([policy.mean() for policy in policies])
    assert mean[0] == pytest.approx(everyone, abs=0.3)
    assert (np.diff(mean[[0, 2, 5, 20]]) >= -0.05).all()
    assert mean[-1] == pytest.approx(policies[2].mean(), abs=0.02)
    # Drawn with replacement, a pool lacks the best policy in (2/3)^3 of all cases, and the second, too, in (1/3)^3.
    assert low[-1] == pytest.approx(policies[0].mean(), abs=0.3)
    assert (low <= mean).all()
    assert (mean <= high).all()


def test_settings_are_what_differs(tmp_path: Path) -> None:
    make_run(tmp_path / "0", 0.1, 0, 1.0)
    make_run(tmp_path / "1", 0.1, 1, 2.0, network={"hidden": [64]})
    found, _ = runs.load([tmp_path])
    assert [runs.name(result.setting) for result in found] == ["network.hidden=[8, 8]", "network.hidden=[64]"]
    rows = verdict.aggregate(runs.groups(found), ["a/b-v0"])
    assert [row.iqm for row in rows] == [2.0, 1.0]


def test_how_the_data_are_used_is_a_setting(tmp_path: Path) -> None:
    for number, (data, percent) in enumerate((data, percent) for data in "ab" for percent in (None, 10)):
        dataset = {"id": data, "top_percent": percent, "reward_scale": {"a": 0.1, "b": 1.0}[data]}
        make_run(tmp_path / str(number), 0.1, 0, float(number), dataset=dataset)
    found, _ = runs.load([tmp_path])
    assert [runs.name(result.setting) for result in found] == ["dataset.top_percent=None", "dataset.top_percent=10"] * 2
    assert [result.task for result in found] == ["a", "a", "b", "b"]


def test_settings_tried_on_different_tasks_are_not_compared(tmp_path: Path) -> None:
    for seed in range(4):
        make_run(tmp_path / f"a{seed}", 0.1, seed, 400.0 + seed, "a/b-v0")
        make_run(tmp_path / f"b{seed}", 1.0, seed, 1.0 + seed, "c/d-v0")
    assert "Not sure: these runs cannot tell it from" in page.write([tmp_path], tmp_path)[1]


def test_returns_of_tasks_without_references_are_scaled(tmp_path: Path) -> None:
    """Beta 1 is best by far in the task of small returns and a little worse in that of large ones."""
    for number, (beta, data) in enumerate((b, d) for b in (0.1, 1.0) for d in ("small", "large") for _ in range(2)):
        score = {("small", 0.1): 0.0, ("small", 1.0): 1.0, ("large", 0.1): 1000.0, ("large", 1.0): 990.0}[data, beta]
        make_run(tmp_path / str(number), beta, number % 2, score + number % 2 * (100 if data == "large" else 0), data)
    found, kind = runs.load([tmp_path])
    assert kind == "return, from 0 to 1 within each task,"
    assert {result.score for result in found if result.task == "small"} == {0.0, 1.0}
    assert page.write([tmp_path], tmp_path)[1].startswith("Use beta=1.0")


def test_runs_on_their_way_allow_no_certainty(sweep: Path) -> None:
    (sweep / "0" / "result.json").unlink()
    answer = page.write([sweep], sweep)[1]
    assert "Not sure: 1 run has not reached the end" in answer
    assert "Fairly sure" not in answer
