"""The page: what its pictures are drawn from, and what a browser makes of them, whatever runs are named."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from awr_exp import origin
from awr_exp.report import about, comparison, drawing, figures, page, runs, tables
from tests.report import browser
from tests.report.test_report import change, make_run, read_one, text_of

HOSTILE = [
    "</script><script>hacked=1</script>",
    "'\"><img src=x onerror=hacked=1>",
    "a\u2028b\u2029${hacked=1}",
    "<b>&amp;",
]
URL = "https://wandb.ai/me/it/runs/abc"


def make_sweep(folder: Path, task: str, betas: int = 3, seeds: int = 5) -> None:
    for number, (beta, seed) in enumerate((beta, seed) for beta in range(1, betas + 1) for seed in range(seeds)):
        make_run(folder / str(number), beta / 10, seed, 10.0 * beta + seed, data=task)


@pytest.fixture(scope="module")
def tab() -> Iterator[browser.Browser]:
    if browser.PROGRAM is None:
        pytest.skip("needs chromium")
    with browser.browser() as one:
        yield one


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of two tasks, one of which has enough runs for all that there is, and the other odd names."""
    folder = tmp_path_factory.mktemp("page") / "sweep"
    make_sweep(folder / "first", "a/b-v0")
    for number, text in enumerate(HOSTILE):
        name = f"javascript:hacked=1;{number}&'\" #?%41"
        make_run(folder / name, 0.1, 0, float(number), data=f"c/{HOSTILE[0]}", note=text)
    record = {"started": "2026-01-02T03:04:05+00:00", "commits": {"mine": "a" * 40}, "versions": {"torch": HOSTILE[0]}}
    (folder / "first" / "0" / origin.ORIGIN).write_text(json.dumps(record | {"url": URL}))
    (folder / "first" / "1" / origin.ORIGIN).write_text(json.dumps(record | {"url": "javascript:hacked=1"}))
    return page.write([folder], folder)[0]


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False), (390, True)])
def test_every_panel_is_drawn_on_any_screen_and_nothing_is_loaded(
    tab: browser.Browser, shown: Path, width: int, dark: bool
) -> None:
    tab.complaints.clear()
    tab.asked.clear()
    tab.open(shown, width, dark)
    drawn = tab.run("[...document.querySelectorAll('.panel')].map((one) => one.querySelectorAll('.trace').length)")
    # Of the first task all five figures, two of the weights; of the other no profile, and no weights' worth.
    assert len(drawn) == text_of(shown).count('class="panel"') == 11
    assert min(drawn) > 0
    assert tab.run("document.documentElement.scrollWidth") == width
    ink, paper = tab.run("[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]")
    assert (sum(map(int, re.findall(r"\d+", ink))) > sum(map(int, re.findall(r"\d+", paper)))) == dark
    text = tab.run("getComputedStyle(document.querySelector('.xtick text')).fill")
    assert text == ink
    assert tab.run("typeof hacked") == "undefined"
    assert tab.complaints == []
    assert tab.asked == [shown.as_uri()]


def test_a_reader_can_smooth_sort_and_filter(tab: browser.Browser, shown: Path) -> None:
    tab.open(shown)
    curve = "document.querySelectorAll('.panel')[1].data.find((one) => one.name === 'beta=0.1').y"
    before = tab.run(curve)
    tab.run("(() => { const one = document.querySelector('.smooth input'); one.value = 1;"
            " one.dispatchEvent(new Event('input')); })()")  # fmt: skip
    # The ends have no neighbours on both sides.
    assert tab.run(curve) == before
    assert tab.run("smooth([1, 2, 6, null, 4], 3)") == [1, 3, 4, None, 4]
    assert tab.run("document.querySelector('.smooth output').value") == "mean of 3 evaluations"
    column = "[...document.querySelectorAll('section:first-of-type table:last-of-type tbody')].pop().rows"
    head = "[...document.querySelectorAll('section:first-of-type th')].findLast((e) => e.textContent === 'return_mean')"
    orders = [tab.run(f"[...{column}].map((row) => parseFloat(row.cells[4].textContent))")]
    for _ in range(2):
        tab.run(f"{head}.click()")
        orders.append(tab.run(f"[...{column}].map((row) => parseFloat(row.cells[4].textContent))"))
    assert orders[0] == orders[2] == sorted(orders[0], reverse=True)
    assert orders[1] == sorted(orders[0])


def test_runs_lead_to_their_folders_and_to_pages_of_wandb_alone(tab: browser.Browser, shown: Path) -> None:
    tab.open(shown)
    links = tab.run("[...document.querySelectorAll('td a')].map((one) => one.href)")
    assert [link for link in links if not link.startswith("file:")] == [URL]
    folders = {one.parent.parent.resolve().as_uri() for one in shown.parent.rglob("config.yaml")}
    assert {link for link in links if link.startswith("file:")} == folders


def test_the_head_says_where_runs_come_from(shown: Path) -> None:
    text = text_of(shown)
    for said in ("2026-01-02 03:04", "mine aaaaaaaaaaaa", "torch &lt;/script&gt;", "2 tasks"):
        assert said in text
    # A task's name stands once.
    assert text.count("a/b-v0") == 1


def test_commands_are_told_without_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "verysecret")
    make_run(tmp_path / "0", 0.1, 0, 1.0, trainer={"updates": 100, "eval_episodes": 7})
    given = {
        "hydra": ["hydra.mode=MULTIRUN", "hydra.sweep.dir=x"],
        "task": ["agent.beta=0.1,1", "a.api_key=k", "b=verysecret"],
    }
    (tmp_path / about.SWEEP).write_text(json.dumps({"hydra": {"overrides": given}}))
    facts = dict(about.facts([tmp_path], [runs.read(tmp_path / "0")]))
    assert facts["command"] == ["python -m awr_exp.main -m agent.beta=0.1,1 'a.api_key=***' 'b=***'"]
    assert facts["evaluation"] == ["7 episodes each time"]


def values(trace: drawing.Trace) -> list[Any]:
    return [*trace.low, *trace.high]


@pytest.mark.parametrize("seeds", [4, 5])
def test_below_five_runs_there_are_points_and_no_intervals(tmp_path: Path, seeds: int) -> None:
    make_sweep(tmp_path, "a/b-v0", seeds=seeds)
    panels = [panel for draw in figures.FIGURES.values() for panel in draw(read_one(tmp_path))]
    traces = [trace for panel in panels for trace in panel.traces]
    assert any(edge is not None for trace in traces for edge in values(trace)) == (seeds == 5)
    assert any(trace.kind == "thin" for trace in traces) == (seeds == 4)
    points = [y for trace in panels[0].traces if trace.kind == "runs" for y in trace.y]
    assert sorted(points) == sorted(10.0 * beta + seed for beta in (1, 2, 3) for seed in range(seeds))


def test_a_profile_is_a_step_at_each_run(tmp_path: Path) -> None:
    make_sweep(tmp_path, "a/b-v0")
    (panel,) = figures.performance_profile(read_one(tmp_path))
    for trace, scores in zip(panel.traces, [10.0 * beta + np.arange(5) for beta in (1, 2, 3)], strict=True):
        assert trace.kind == "steps"
        for x, y in zip(trace.x, trace.y, strict=True):
            assert y == np.mean(scores > x)
        assert list(trace.x)[1:-1] == list(scores)


def test_of_many_settings_the_best_have_a_colour(tmp_path: Path) -> None:
    make_sweep(tmp_path, "a/b-v0", betas=20, seeds=2)
    compared = read_one(tmp_path)
    colours = figures.compared_colours(compared)
    coloured = [group.setting for group in compared.ranked if colours[group.setting] is not None]
    assert coloured == [group.setting for group in compared.ranked[: drawing.COLOURS]]
    assert sorted(filter(None, colours.values())) == list(range(1, drawing.COLOURS))
    (panel,) = figures.learning_curves(compared)
    labels = {trace.label for trace in panel.traces}
    assert labels == {figures.OTHERS, *(compared.names[setting] for setting in coloured)}


def test_a_long_curve_is_thinned_and_keeps_its_ends(tmp_path: Path) -> None:
    make_run(tmp_path / "0", 0.1, 0, 1.0)
    rows = [{"update": u, "env_steps": 0, "name": "eval/return_mean", "value": float(u)} for u in range(5000)]
    (tmp_path / "0" / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    change(tmp_path / "0", "result.json", update=4999)
    (panel,) = figures.learning_curves(read_one(tmp_path))
    (trace,) = panel.traces
    assert (len(trace.x), trace.x[0], trace.x[-1]) == (figures.POINTS, 0, 4999)
    assert list(trace.x) == trace.y


@given(st.lists(st.floats(-1e6, 1e6) | st.none() | st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=1))
def test_numbers_of_a_column_have_the_same_digits(cells: list[Any]) -> None:
    head, *texts = (row[0] for row in tables.shown([["a"], *([cell] for cell in cells)]))
    digits = {len(after) for text in texts for after in re.findall(r"\d+\.?(\d*)(?:e[+-]\d+)?", text)}
    assert head == "a"
    assert len(digits) <= 1
    for cell, text in zip(cells, texts, strict=True):
        if isinstance(cell, float):
            largest = max(abs(one) for one in np.hstack([cell for cell in cells if cell is not None]))
            assert float(text) == pytest.approx(cell, abs=0.006 * largest)


@given(st.text(), st.floats())
def test_what_a_page_is_given_is_json(text: str, value: float) -> None:
    trace = drawing.Trace("runs", [1.0], [value], label=text, about=[text])
    panel = drawing.framed(drawing.Axis(text), text, [trace], [drawing.Level(text, 1.0)])
    back = json.loads(json.dumps(drawing.as_json(panel), allow_nan=False))
    assert back["traces"][0]["label"] == text
    assert back["traces"][0]["y"] == [pytest.approx(value, rel=1e-5) if np.isfinite(value) else None]


def test_a_task_that_was_not_evaluated_has_its_runs_alone(tmp_path: Path) -> None:
    make_run(tmp_path / "0", 0.1, 0, 1.0)
    make_run(tmp_path / "1", 0.1, 0, 1.0, data="c/d-v0")
    (tmp_path / "1" / "metrics.jsonl").unlink()
    assert [bool(one.groups) for one in comparison.load([tmp_path])[0]] == [True, False]
    assert "Nothing was evaluated here yet." in text_of(page.write([tmp_path], tmp_path)[0])
