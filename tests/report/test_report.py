"""The report: its statistics against closed forms, its reading of whole and broken sweeps, its tables and answers."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from awr_exp import results
from awr_exp.errors import UserError
from awr_exp.report import comparison, figures, images, page, settings, statistics, tables, verdict
from awr_exp.report.__main__ import main
from tests.conftest import make_awr

Values = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=12).map(np.array)


def make_run(folder: Path, beta: float, seed: int, score: float, /, data: str = "a/b-v0", **more: Any) -> None:
    """A run's result files, as if it had been trained to update 100; more: of its configuration."""
    config: dict[str, Any] = {
        "agent": {"_target_": "awr_exp.agents.awr.AWR", "beta": beta, "network": "${network}"},
        "network": {"hidden": [8, 8]},
        "dataset": {"_target_": "awr_exp.data.minari.load", "id": data},
        "trainer": {"_target_": "awr_exp.training.offline.Offline", "updates": 100},
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


def test_a_run_whose_method_was_changed_on_its_way_is_left_out(tmp_path: Path) -> None:
    for number, changed in enumerate(({}, {"trainer.updates": "100", "threads": "2"}, {"agent.beta": "1.0"})):
        make_run(tmp_path / str(number), 0.1, number, 1.0)
        (tmp_path / str(number) / ".hydra" / "resumed.yaml").write_text(yaml.safe_dump(changed))
    (one,), left_out = comparison.load([tmp_path])
    assert [result.run.folder.name for result in one.found] == ["0", "1"]
    (line,) = left_out
    assert "2 was resumed with agent.beta=1.0, so that it is of no one setting" in line


def text_of(path: Path) -> str:
    """What a page says, without its scripts and its style."""
    return re.sub(r"<(script|style)>.*?</\1>", "", path.read_text(), flags=re.DOTALL)


def read_one(*folders: Path) -> comparison.Comparison:
    """Of runs of one task."""
    ((one,), _) = comparison.load(folders)
    return one


def report(*folders: Path) -> str:
    """The answer of a report on runs of one task."""
    return verdict.answer(read_one(*folders))


def change(folder: Path, name: str, **values: Any) -> None:
    """Of the result (result.json), or of every row of metrics.jsonl named `name`."""
    if name == results.RESULT:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | values))
        return
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rows = [row | (values if row["name"] == name else {}) for row in rows]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Beta 0.3 is best beyond doubt, the middle one of three; five seeds each."""
    folder = tmp_path / "sweep"
    for number, (beta, seed) in enumerate((beta, seed) for beta in (0.1, 0.3, 1.0) for seed in range(5)):
        make_run(folder / str(number), beta, seed, {0.1: 20.0, 0.3: 60.0, 1.0: 40.0}[beta] + seed)
    return folder


@pytest.mark.parametrize("module", ["report", "dashboard"])
def test_commands_do_without_docstrings(module: str) -> None:
    """As an interpreter that was asked to optimise leaves them out."""
    subprocess.run([sys.executable, "-OO", "-m", f"awr_exp.{module}", "--help"], check=True, stdout=subprocess.DEVNULL)


def test_the_answer_and_how_sure_it_is(sweep: Path) -> None:
    answer = report(sweep)
    assert answer.startswith("Use beta=0.3 (interquartile mean of the return 62, 95% interval 60")
    assert "Fairly sure: each of its runs is better than every run of the other settings." in answer
    assert "smallest" not in answer


def estimate(folder: Path, value: float) -> None:
    """Add what a run was estimated at by its data."""
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"update": 100, "env_steps": 0, "name": "fqe/return_mean", "value": value}) + "\n")


@pytest.mark.usefixtures("unpainted")
@pytest.mark.parametrize(("sign", "correlation"), [(1, 1.0), (-1, -1.0)])
def test_estimates_are_beside_the_returns_that_they_are_of(sweep: Path, sign: int, correlation: float) -> None:
    for folder in results.folders(sweep):
        result = results.read(folder)
        estimate(folder, sign * result.metrics["eval/return_mean"] ** 3)
    assert read_one(sweep).agreement == (pytest.approx(correlation), 15)
    path, _ = page.write([sweep], sweep)
    shown = text_of(path)
    assert f"rank correlation (Spearman) of {correlation:.2f}" in shown
    assert ">estimate</th>" in shown


def test_without_an_environment_the_estimate_is_what_settings_are_judged_by(sweep: Path) -> None:
    for folder in results.folders(sweep):
        estimate(folder, -results.read(folder).metrics["eval/return_mean"])
        rows = [line for line in (folder / "metrics.jsonl").read_text().splitlines() if "eval/" not in line]
        (folder / "metrics.jsonl").write_text("\n".join(rows))
    one = read_one(sweep)
    assert one.agreement is None
    assert verdict.answer(one).startswith("Use beta=0.1 (interquartile mean of the estimated discounted return -22")


@given(st.lists(st.integers(-9, 9), min_size=2).filter(lambda x: len(set(x)) > 1).map(np.array), st.integers(0, 100))
def test_the_rank_correlation_is_of_orders_alone(x: Any, seed: int) -> None:
    assert statistics.spearman(x, x**3) == pytest.approx(1)
    assert statistics.spearman(x, -x) == pytest.approx(-1)
    y = np.random.default_rng(seed).permutation(x)
    assert statistics.spearman(x, y) == pytest.approx(statistics.spearman(y, 2 * x + 1))


def test_what_is_made_of_held_out_episodes_has_curves(tmp_path: Path) -> None:
    """Also where nothing else is known."""
    for seed in (0, 1):
        make_run(tmp_path / str(seed), 0.1, seed, 1.0)
        rows = [(at, name, at / 100 + seed) for at in (50, 100) for name in ("heldout/nll", "heldout/value_error")]
        lines = [json.dumps({"update": u, "env_steps": 0, "name": name, "value": value}) for u, name, value in rows]
        (tmp_path / str(seed) / "metrics.jsonl").write_text("\n".join(lines))
    page.write([tmp_path], tmp_path)
    assert {path.name for path in (tmp_path / "report").iterdir()} == {"curves.png"}
    assert "evaluate=fqe estimates their returns" in report(tmp_path)
    assert "On held-out episodes less is better." in text_of(tmp_path / "report.html")
    panels = figures.learning_curves(read_one(tmp_path))
    assert [panel.y.title for panel in panels] == ["held-out NLL", "held-out value error"]
    assert list(panels[0].traces[-1].y) == [1.0, 1.5]


def test_copies_of_a_run_make_nobody_sure(tmp_path: Path) -> None:
    for number in range(6):
        make_run(tmp_path / str(number), 0.1 if number < 3 else 1.0, 0, 5.0 if number < 3 else 6.0)
    answer = report(tmp_path)
    assert answer.startswith("Use beta=1.0 (return 6 of 1 run). Not sure at all: ")
    assert answer.endswith("4 runs repeat another of the same setting and seed, and such count once.")


def test_an_answer_that_is_not_sure_says_so(tmp_path: Path) -> None:
    for number in range(10):
        make_run(tmp_path / str(number), 0.1 if number < 5 else 1.0, number % 5, float(number % 5) + number / 100)
    assert re.search(r"Not sure: these runs cannot tell it from beta=0.1 \(.* in 60% of all pairs\)", report(tmp_path))
    make_run(tmp_path / "10", 3.0, 0, 100.0)
    assert "Not sure at all" in report(tmp_path)


@pytest.mark.usefixtures("unpainted")
@pytest.mark.parametrize(("seeds", "sure"), [(2, False), (3, True), (4, True)])
def test_few_runs_are_points_and_have_no_interval(tmp_path: Path, seeds: int, sure: bool) -> None:
    """In which order two times two runs lie may be chance, though all pairs are won."""
    for number in range(2 * seeds):
        make_run(tmp_path / str(number), 0.1 if number < seeds else 1.0, number % seeds, float(number))
    compared = read_one(tmp_path)
    answer = verdict.answer(compared)
    assert f"{seeds} runs from {seeds} to {2 * seeds - 1}" in answer
    assert ("Fairly sure" in answer) == sure
    assert ("all its runs are better than those of beta=0.1, but 2 of a setting are few" in answer) != sure
    assert "cannot tell" not in answer
    assert "95%" not in answer
    assert [group.interval or group.ahead_interval for group in compared.groups] == [None, None]
    path, _ = page.write([tmp_path], tmp_path / "out")
    assert "95%" not in text_of(path)
    pictures = sorted(picture.stem for picture in (tmp_path / "out" / "report").iterdir())
    assert pictures == ["beta", "curves", "health", "tuning"]


def test_a_best_beta_at_the_edge_asks_for_more(sweep: Path) -> None:
    for seed in range(5):
        make_run(sweep / str(15 + seed), 3.0, seed, 90.0 + seed)
    assert report(sweep).endswith("It is the largest beta tried: try larger ones.")


SWITCH = {"train/std_advantage": 2.0, "train/clipped": 0.5, "train/zero_weight": 0.4, "train/max_weight": 20.0}


def with_weights(folder: Path, **weights: float) -> None:
    """A run's last report of its weights."""
    rows = [{"update": 100, "env_steps": 0, "name": name, "value": value} for name, value in weights.items()]
    with (folder / "metrics.jsonl").open("a") as file:
        file.writelines(f"{json.dumps(row)}\n" for row in rows)


def of_agent(beta: float, **more: Any) -> dict[str, Any]:
    return {"_target_": "awr_exp.agents.awr.AWR", "beta": beta, "max_weight": 20.0, **more}


@pytest.mark.parametrize(
    ("betas", "weights", "says", "never"),
    [
        ((0.05, 0.3, 1.0), SWITCH, "a smaller beta changes nothing.", "try smaller ones|compare with agent.beta=2"),
        ((0.05, 0.1, 0.3), SWITCH, "a smaller beta changes nothing; compare with agent.beta=2", "try smaller ones"),
        ((0.05, 0.3, 1.0), SWITCH | {"train/zero_weight": 0.1}, "the smallest beta tried: try smaller ones.", "switch"),
        ((50, 0.3, 1.0), SWITCH | {"train/ess": 0.995, "train/clipped": 0.0, "train/zero_weight": 0.0},
         "a larger beta changes nothing", "try larger ones"),
        ((0.05, 0.3, 1.0), SWITCH | {"train/clipped": 0.9},
         "an effective sample size of 0.50 is no sign of health", "smaller"),
    ],
)  # fmt: skip
def test_the_advice_is_that_of_the_warning(
    tmp_path: Path, betas: tuple[float, ...], weights: dict[str, float], says: str, never: str
) -> None:
    for number, beta in enumerate(betas):
        make_run(tmp_path / str(number), beta, 0, -float(number), agent=of_agent(beta))
        with_weights(tmp_path / str(number), **weights if number == 0 else {})
    answer = report(tmp_path)
    assert answer.startswith(f"Use beta={betas[0]}")
    assert says in answer
    assert not re.search(never, answer)
    metrics = {"ess": 0.5} | {name.removeprefix("train/"): value for name, value in weights.items()}
    for _, sentence in make_awr(beta=betas[0], max_weight=20.0).warnings(0, metrics):
        assert sentence.partition("; compare")[0].partition("; try")[0].casefold() in answer.casefold()


def test_rewards_that_are_all_the_same_leave_no_advice_on_beta(tmp_path: Path) -> None:
    for number, beta in enumerate((0.05, 0.3, 1.0)):
        make_run(tmp_path / str(number), beta, 0, -float(number), agent=of_agent(beta))
        with_weights(tmp_path / str(number), **SWITCH, **{"train/equal_rewards": 1.0})
    answer = report(tmp_path)
    assert "All rewards are the same" in answer
    assert not re.search("smaller|compare with", answer)


def test_standardised_advantages_spread_by_one(tmp_path: Path) -> None:
    """Raw ones may spread by anything: beta is in standard deviations."""
    for number, beta in enumerate((0.5, 1.0, 2.0)):
        agent = of_agent(beta, standardize_advantages=True)
        make_run(tmp_path / str(number), beta, 0, -float(number), agent=agent)
        with_weights(tmp_path / str(number), **SWITCH | {"train/std_advantage": 500.0})
    assert "advantages that spread by 1:" in report(tmp_path)


@pytest.mark.parametrize(
    ("weighting", "solved", "said"),
    [
        ("weights.indicator", {}, None),
        ("running.Quantile", {}, None),
        ("adaptive.AdaptiveESS", {"train/beta": 0.9}, None),
        ("running.Sigmoid", {}, "spread by 1:"),
    ],
)
def test_a_beta_is_judged_by_what_it_does(
    tmp_path: Path, weighting: str, solved: dict[str, float], said: str | None
) -> None:
    part = {"_target_": f"awr_exp.math.{weighting}"}
    make_run(tmp_path / "0", 0.05, 0, 1.0, weighting=part, agent=of_agent(0.05))
    with_weights(tmp_path / "0", **SWITCH | {"train/std_advantage": 500.0} | solved)
    text = report(tmp_path)
    assert said is None or said in text
    assert ("switch" in text) == (said is not None)


@pytest.mark.usefixtures("unpainted")
def test_saturated_weights_are_told_from_healthy_ones(sweep: Path) -> None:
    for number in range(15):
        with_weights(sweep / str(number), **SWITCH | {"train/clipped": 0.95 if number < 5 else 0.1, "train/ess": 0.97})
        config = sweep / str(number) / ".hydra" / "config.yaml"
        config.write_text(config.read_text().replace("agent:\n", "agent:\n  max_weight: 20\n"))
    groups = read_one(sweep).ranked
    assert [group.judgement and group.judgement.state for group in groups] == [None, None, "saturated"]
    text = text_of(page.write([sweep], sweep)[0])
    assert text.count("<td>healthy</td>") == 2
    assert text.count("<td>saturated</td>") == 1


@pytest.mark.usefixtures("unpainted")
def test_the_cause_is_said_of_the_best_and_of_each_setting(sweep: Path) -> None:
    for number in range(15):
        lags = {"train/explained_variance": 0.5, "train/value_loss": 3.0 + number, "train/std_advantage": 1.0}
        narrow = {"diagnosis/coverage": 0.02}
        with_weights(sweep / str(number), **narrow if number < 5 else narrow | lags if number < 10 else {})
    compared = read_one(sweep)
    assert "Of the best: the critic lags behind" in verdict.answer(compared)
    head, *rows = tables.diagnoses(compared)
    assert head == ["setting", "diagnosis"]
    said = dict(rows)
    assert said["beta=0.3"].startswith("the critic lags behind")
    assert "; then: the data's episodes" in said["beta=0.3"]
    assert said["beta=0.1"].startswith("the data's episodes are about equally good (the best tenth leads by 0.02)")
    assert "beta=1.0" not in said
    numbers = {head: cells for head, *cells in zip(*tables.shown(tables.findings(compared)), strict=True)}
    assert numbers["setting"] == ["healthy", "beta=0.3", "beta=1.0", "beta=0.1"]
    # Means over the runs of a setting.
    assert numbers["squared error of V / variance of A"] == ["up to 1.5", "10.00 ✗", "", ""]
    assert numbers["effective sample size"] == ["0.05 to 0.99", "0.500", "0.500", "0.500"]
    assert "Why it does not learn" in text_of(page.write([sweep], sweep)[0])


@pytest.mark.usefixtures("unpainted")
def test_of_runs_that_measured_nothing_nothing_is_said(sweep: Path) -> None:
    for path in sweep.rglob("metrics.jsonl"):
        path.write_text("".join(line for line in path.open() if "train/" not in line))
    assert tables.diagnoses(read_one(sweep)) == tables.findings(read_one(sweep)) == []
    assert "Why it does not learn" not in text_of(page.write([sweep], sweep)[0])


def test_runs_that_are_all_the_same_recommend_nothing(tmp_path: Path) -> None:
    for number in range(4):
        make_run(tmp_path / str(number), (0.1, 1.0)[number % 2], number // 2, -1000.0)
    assert report(tmp_path) == "All runs of all 2 settings have the same return, -1000: none is better."


@pytest.mark.usefixtures("unpainted")
def test_tables_have_every_run(sweep: Path) -> None:
    path, _ = page.write([sweep], sweep)
    with (sweep / "report.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 15
    assert {row["agent.beta"] for row in rows} == {"0.1", "0.3", "1.0"}
    assert float(rows[0]["eval/return_mean"]) == 20.0
    assert ">95% interval of the IQM<" in text_of(path)
    assert {path.name for path in (sweep / "report").iterdir()} == {
        "beta.png", "curves.png", "health.png", "profile.png", "tuning.png",
    }  # fmt: skip


@pytest.mark.usefixtures("unpainted")
def test_running_and_failed_runs(sweep: Path) -> None:
    torn = sweep / "0" / "metrics.jsonl"
    torn.write_bytes(torn.read_bytes()[:-9] + b"\xff\x00")
    (sweep / "1" / "metrics.jsonl").unlink()
    (sweep / "4" / "result.json").unlink()
    change(sweep / "5", results.RESULT, status="failed", error="<b>diverged</b>")
    path, (answer,) = page.write([sweep], sweep)
    assert answer.startswith("Use beta=0.3")
    # One has written all but its result; the torn one was last read at half of its updates.
    assert "Not sure: of these settings 2 runs have failed, or not reached the end." in answer
    text = text_of(path)
    assert "15 runs: 13 finished, 1 unfinished, 1 failed; 1 without an evaluation, left out of all statistics." in text
    assert "&lt;b&gt;diverged" in text
    assert "<b>diverged" not in text


def test_what_was_judged_at_another_budget_is_not_compared(tmp_path: Path) -> None:
    """As a search leaves its trials: the hopeless ones were judged, and given up, at a quarter of the updates."""
    for number, (beta, updates, score) in enumerate(
        [(0.4, 25, -10.0), (0.5, 25, -12.0), (0.8, 100, -20.0), (0.9, 50, -9.0)]
    ):
        folder = tmp_path / "search" / str(number)
        make_run(folder, beta, 0, score, trainer={"_target_": "awr_exp.training.offline.Offline", "updates": updates})
        change(folder, results.RESULT, update=updates, status="finished" if updates == 100 else "pruned")
        change(folder, "eval/return_mean", update=updates)
    path, (answer,) = page.write([tmp_path / "search"], tmp_path / "search")
    assert answer.startswith("Use beta=0.8 (return -20 of 1 run): no other setting was judged at 100 updates.")
    assert "3 runs have been judged elsewhere than at 100 updates, and are not compared." in answer
    assert "updates=" not in answer
    assert "<td>pruned</td>" in text_of(path)


def test_runs_on_their_way_compare_where_all_have_been(tmp_path: Path) -> None:
    for number, (beta, reached) in enumerate([(0.1, 50), (1.0, 100)]):
        make_run(tmp_path / str(number), beta, 0, 10.0 - number, trainer={"updates": 1000})
        (tmp_path / str(number) / "result.json").unlink()
        if reached == 50:
            lines = (tmp_path / str(number) / "metrics.jsonl").read_text().splitlines()
            kept = [line for line in lines if '"update": 100' not in line]
            (tmp_path / str(number) / "metrics.jsonl").write_text("\n".join(kept))
    compared = read_one(tmp_path)
    assert compared.budget == 50
    assert sorted(result.score or 0.0 for result in compared.found) == [4.5, 5.0]


def test_whole_iterations_are_the_budget_that_was_asked_for(tmp_path: Path) -> None:
    for number, envs in enumerate((2, 8)):
        make_run(tmp_path / str(number), 0.1, 0, 1.0, trainer={"env_steps": 1000, "envs": envs}, dataset=None)
        change(tmp_path / str(number), results.RESULT, env_steps=1000 + envs - 1)
        change(tmp_path / str(number), "eval/return_mean", env_steps=1000 + envs - 1)
    compared = read_one(tmp_path)
    assert (compared.budget, len(compared.groups)) == (1000, 2)


def test_the_score_is_what_was_maximised(tmp_path: Path) -> None:
    for number, beta in enumerate((0.1, 1.0)):
        make_run(tmp_path / str(number), beta, 0, float(number), objective="train/ess")
        change(tmp_path / str(number), "train/ess", value=0.9 - number / 10)
    assert report(tmp_path).startswith("Use beta=0.1 (train/ess 0.9 of 1 run)")


@pytest.mark.usefixtures("unpainted")
def test_several_tasks_are_never_ranked_together(tmp_path: Path) -> None:
    """Each has the answer of its own, though a run of the one has a return that the other's cannot reach."""
    for number, (beta, data) in enumerate((b, d) for b in (0.1, 1.0) for d in ("a/b-v0", "c/d-v0") for _ in range(3)):
        score = {("a/b-v0", 0.1): 2, ("a/b-v0", 1.0): 1, ("c/d-v0", 0.1): 1000, ("c/d-v0", 1.0): 2000}[data, beta]
        dataset = {"id": data, "reward_scale": {"a": 0.1, "c": 1.0}[data[0]]}
        make_run(tmp_path / "s" / str(number), beta, number % 3, score + number / 100, dataset=dataset)
    path, answers = page.write([tmp_path / "s"], tmp_path / "s")
    assert [answer.partition(" (")[0] for answer in answers] == ["a/b-v0: Use beta=0.1", "c/d-v0: Use beta=1.0"]
    assert text_of(path).count('class="answer"') == 2
    assert {"beta_0.png", "beta_1.png"} <= {picture.name for picture in (tmp_path / "s" / "report").iterdir()}


@pytest.mark.parametrize(
    ("first", "second", "tasks"),
    [
        ({"dataset": {"id": "a"}}, {"dataset": {"id": "b"}}, ["a", "b"]),
        ({"env": {"id": "Ant-v5"}}, {"env": {"id": "Hopper-v5"}}, ["a/b-v0 in Ant-v5", "a/b-v0 in Hopper-v5"]),
        (
            {"env": {"id": "Ant-v5", "clip_actions": True}}, {"env": {"id": "Ant-v5", "clip_actions": False}},
            ["a/b-v0 in Ant-v5 clip_actions=False", "a/b-v0 in Ant-v5 clip_actions=True"],
        ),
        ({"env": {"id": "E", "kwargs": {"x": 1}}}, {"env": {"id": "E"}}, ["a/b-v0 in E", "a/b-v0 in E x=1"]),
        ({"env": {"vectorized": True}}, {"env": {"vectorized": False}}, ["a/b-v0"]),
        # Updates and environment steps are no budgets that compare.
        ({"trainer": {"updates": 100}}, {"trainer": {"env_steps": 100}}, ["a/b-v0", "a/b-v0"]),
    ],
)  # fmt: skip
def test_what_makes_a_task(tmp_path: Path, first: Any, second: Any, tasks: list[str]) -> None:
    make_run(tmp_path / "0", 0.1, 0, 1.0, **first)
    make_run(tmp_path / "1", 0.1, 0, 2.0, **second)
    assert [one.task for one in comparison.load([tmp_path])[0]] == tasks


@pytest.mark.parametrize(
    "values",
    [
        {"seed": 1}, {"device": "cuda"}, {"threads": 3}, {"resume": "x"}, {"trust": ["x"]}, {"objective": "train/ess"},
        {"logger": {"jsonl": {"x": 1}}}, {"hydra": {"run": {"dir": "x"}}}, {"sweep": {"resume": "x"}},
        {"recorder": {"dataset_id": "x"}}, {"baseline": {"_target_": "awr_exp.agents.bc.BC"}},
        *({"trainer": {"updates": 100, name: 7}} for name in (
            "report_interval", "eval_interval", "eval_episodes", "checkpoint_interval", "compile", "workers")),
        {"dataset": {"id": "a/b-v0", "download": True}},
    ],
    ids=str,
)  # fmt: skip
def test_bookkeeping_is_no_setting(tmp_path: Path, values: dict[str, Any]) -> None:
    nothing = {name: {} if isinstance(value, dict) else None for name, value in values.items()}
    nothing |= {"dataset": {"id": "a/b-v0"}, "trainer": {"updates": 100}}
    make_run(tmp_path / "0", 0.1, 0, 1.0, **nothing)
    make_run(tmp_path / "1", 0.1, 1, 2.0, **nothing | values)
    assert [result.setting for result in read_one(tmp_path).found] == [(), ()]


def test_the_policies_that_seeds_begin_with_are_no_setting(tmp_path: Path) -> None:
    for number, (seed, policy) in enumerate([(0, "a"), (1, "b")]):
        make_run(tmp_path / str(number), 0.1, seed, 1.0, resume_policy=policy)
    assert len(read_one(tmp_path).groups) == 1
    make_run(tmp_path / "2", 0.1, 0, 1.0, resume_policy="c")
    assert len(read_one(tmp_path).groups) == 3


@pytest.mark.usefixtures("unpainted")
def test_long_settings_are_numbered_and_listed(tmp_path: Path) -> None:
    for number in range(2):
        network = {"hidden": [256] * (number + 9), "activation": ("relu", "tanh")[number], "init": f"kaiming{number}"}
        make_run(tmp_path / "s" / str(number), 0.1, 0, float(number), network=network)
    path, (answer,) = page.write([tmp_path / "s"], tmp_path / "s")
    full = f"network.activation=tanh network.hidden={[256] * 10} network.init=kaiming1"
    assert answer.startswith(f"Use setting 2, which is {full} (")
    assert f">setting 2: {full}</td>" in text_of(path)
    # So are those that look the same, with all their digits.
    make_run(tmp_path / "t" / "0", 0.30000001, 0, 1.0)
    make_run(tmp_path / "t" / "1", 0.30000002, 0, 2.0)
    assert report(tmp_path / "t").startswith("Use setting 2, which is beta=0.3")
    assert "setting 2: beta=0.30000002" in text_of(page.write([tmp_path / "t"], tmp_path / "t")[0])


def test_a_value_that_refers_to_another_has_its_value(tmp_path: Path) -> None:
    make_run(tmp_path / "0", 0.1, 0, 1.0, agent={"beta": "${mine.beta}"}, mine={"beta": "${other}"}, other=0.7)
    assert read_one(tmp_path).found[0].config["agent.beta"] == 0.7


@pytest.mark.usefixtures("unpainted")
def test_nothing_is_written_into_the_folder_of_a_run(
    sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted((sweep / "0").rglob("*"))
    for folders, out in (
        ([sweep], "sweep"),
        ([sweep / "0"], "outputs/reports"),
        ([sweep / "0", sweep], "outputs/reports"),
    ):
        main(list(map(str, folders)))
        said = capsys.readouterr().out.rpartition("report: ")[2].strip()
        assert Path(said).relative_to(tmp_path if Path(said).is_absolute() else ".").is_relative_to(out)
        assert Path(said).exists()
    with pytest.raises(SystemExit, match=r"sweep/1 is the folder of a run, which is left as it is: .*--out"):
        main([str(sweep), "--out", str(sweep / "1")])
    assert sorted((sweep / "0").rglob("*")) == before


@pytest.mark.parametrize("value", [0.0, -1000.0, 1e99, 3.0])
@pytest.mark.parametrize("runs", [1, 2])
def test_axes_never_collapse(tmp_path: Path, value: float, runs: int) -> None:
    for number in range(runs):
        make_run(tmp_path / str(number), 0.3, number, value)
        with_weights(tmp_path / str(number), **{"train/mean_weight": value, "train/zero_weight": float("nan")})
    compared = read_one(tmp_path)
    for draw in (figures.score_by_beta, figures.learning_curves, figures.health_by_beta):
        panels = draw(compared)
        assert panels
        for panel in panels:
            for low, high in (panel.x.limits, panel.y.limits):
                assert high - low > 1e-3 * max(abs(low), abs(high))
        assert images.png(panels).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "holds no results: give the folder of a run or of a sweep"),
        (lambda folder: folder.mkdir(), "holds no results"),
        (lambda folder: (folder / ".hydra").mkdir(parents=True), "holds no results that can be read: .*config.yaml"),
        (lambda folder: not_evaluated(folder), "holds no evaluation yet"),
    ],
)
def test_a_folder_without_results(tmp_path: Path, make: Any, message: str) -> None:
    make(tmp_path / "folder")
    with pytest.raises(SystemExit, match=rf"^error: \S+ {message}.*$"):
        main([str(tmp_path / "folder")])


def not_evaluated(folder: Path) -> None:
    make_run(folder, 0.1, 0, 1.0)
    (folder / "metrics.jsonl").unlink()


def test_the_report_is_a_command(sweep: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "awr_exp.report", str(sweep)], capture_output=True, text=True, check=False
    )
    assert done.stdout.startswith("Use beta=0.3")
    assert done.stdout.endswith(f"report: {sweep}/report.html\n")


@pytest.mark.usefixtures("unpainted")
def test_no_permission_to_write(sweep: Path) -> None:
    with pytest.raises(UserError, match=r"/proc/nothing cannot be written.*--out"):
        page.write([sweep], Path("/proc/nothing"))


@given(Values)
def test_the_interquartile_mean_lies_between_the_quartiles(values: Any) -> None:
    middle = float(statistics.iqm(values))
    assert np.quantile(values, 0.25, method="lower") - 1e-9 <= middle
    assert middle <= np.quantile(values, 0.75, method="higher") + 1e-9


def test_statistics_by_hand() -> None:
    assert statistics.iqm(np.array([0.0, 1.0, 2.0, 100.0])) == 1.5
    assert statistics.bootstrap(np.array([3.0, 3.0])) == (3.0, 3.0)
    x, y = np.array([2.0, 3.0]), np.array([1.0, 2.0])
    value = statistics.probability_of_improvement(x, y)
    assert value == pytest.approx((0.5 + 1 + 1 + 1) / 4)
    low, high = statistics.improvement_interval(x, y)
    assert low <= value <= high
    share, below, above = statistics.profile(np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.0, 2.5, 5.0]))
    assert share.tolist() == [1.0, 0.5, 0.0]
    assert (below <= share).all()
    assert (share <= above).all()


def test_the_bootstrap_agrees_with_the_normal_interval() -> None:
    values = np.random.default_rng(0).normal(5, 2, 400)
    low, high = statistics.bootstrap(values, lambda v: v.mean(-1))
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
    compared = read_one(tmp_path)
    assert [settings.name(one.setting) for one in compared.found] == ["network.hidden=[8, 8]", "network.hidden=[64]"]
    assert [group.iqm for group in compared.ranked] == [2.0, 1.0]


def chose(folder: Path, given: list[str], **options: str) -> None:
    """Make it a run of these overrides and options."""
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(given))
    (folder / ".hydra" / "hydra.yaml").write_text(yaml.safe_dump({"hydra": {"runtime": {"choices": options}}}))


def test_settings_are_what_was_chosen_and_not_what_follows_from_it(tmp_path: Path) -> None:
    agents: list[tuple[str, str, dict[str, Any]]] = [
        ("awr", "awr_exp.agents.awr.AWR", {"max_weight": 20.0, "actor_lr": 1e-3}),
        ("marwil", "awr_exp.agents.awr.AWR", {"max_weight": 100.0, "actor_lr": 1e-3}),
        ("bc_top", "awr_exp.agents.bc_top.BCTop", {"actor_lr": 1e-3}),
    ]
    for number, (name, target, more) in enumerate(agents):
        parts = {"network": "${network}", "weighting": "${weighting}"}
        agent = {"_target_": target, **parts, **more}
        weighting = {"_target_": "awr_exp.math.weights.exp_clip" if number else "awr_exp.math.running.ExpRunningScale"}
        make_run(tmp_path / str(number), 0.1, 0, float(number), agent=agent, weighting=weighting)
        chose(tmp_path / str(number), [f"agent={name}", "seed=0"], agent=name, weighting=f"of_{name}", env="gym")

    def names() -> list[str]:
        return [settings.name(one.setting) for one in read_one(tmp_path).found]

    assert names() == ["agent=awr", "agent=marwil", "agent=bc_top"]
    # What does not follow is said, whoever changed it: somebody's own yaml, or another version.
    agent = {"_target_": agents[0][1], "network": "${network}", "weighting": "${weighting}", "actor_lr": 1e-4}
    weighting = {"_target_": "awr_exp.math.running.ExpRunningScale"}
    make_run(tmp_path / "3", 0.1, 1, 3.0, agent=agent | {"max_weight": 20.0}, weighting=weighting)
    chose(tmp_path / "3", ["agent=awr", "seed=1"], agent="awr", weighting="of_awr")
    assert names()[::3] == ["agent=awr actor_lr=0.001", "agent=awr actor_lr=0.0001"]
    # What was given is said, even if it follows.
    chose(tmp_path / "1", ["agent=marwil", "seed=0", "agent.max_weight=100"], agent="marwil", weighting="of_marwil")
    assert names()[1] == "agent=marwil max_weight=100.0 actor_lr=0.001"
    # Where nobody knows what was given, everything is.
    (tmp_path / "2" / ".hydra" / "overrides.yaml").unlink()
    assert names()[2] == "agent=bc_top actor_lr=0.001 weighting=of_bc_top"


def test_how_the_data_are_used_is_a_setting(tmp_path: Path) -> None:
    for number, (data, percent) in enumerate((data, percent) for data in "ab" for percent in (None, 10)):
        dataset = {"id": data, "top_percent": percent, "reward_scale": {"a": 0.1, "b": 1.0}[data]}
        make_run(tmp_path / str(number), 0.1, 0, float(number), dataset=dataset)
    for one in comparison.load([tmp_path])[0]:
        names = [settings.name(result.setting) for result in one.found]
        assert names == ["dataset.top_percent=None", "dataset.top_percent=10"]


def test_runs_on_their_way_allow_no_certainty(sweep: Path) -> None:
    (sweep / "0" / "result.json").unlink()
    answer = report(sweep)
    assert "Not sure: of these settings 1 run has failed, or not reached the end." in answer
    assert "Fairly sure" not in answer
