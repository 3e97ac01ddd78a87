"""Reports over folders that hold anything: what is broken is left out, with a line that names it, and costs nothing."""

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from awr_exp import results
from awr_exp.errors import UserError
from awr_exp.report import comparison, page, tables, verdict
from tests.report.test_report import make_run, text_of

Break = Callable[[Path], object]

CONFIG, RESULT, METRICS = ".hydra/config.yaml", "result.json", "metrics.jsonl"
HUGE = "1" + "0" * 400
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{','.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(9)
)


def holds(name: str, text: str | bytes) -> Break:
    """The file has this content."""
    return lambda run: (run / name).write_bytes(text if isinstance(text, bytes) else text.encode())


def config(**groups: Any) -> Break:
    """As `holds`, of a configuration that is whole but for these groups; texts are YAML."""

    def broken(run: Path) -> None:
        content = yaml.safe_load((run / CONFIG).read_text())
        lines = [yaml.safe_dump({name: value}) for name, value in content.items() if name not in groups]
        (run / CONFIG).write_text("".join([*lines, *(f"{name}: {text}\n" for name, text in groups.items())]))

    return broken


def result(**values: str) -> Break:
    """As `holds`, of a result that is whole but for these; texts are JSON."""

    def broken(run: Path) -> None:
        content = {name: json.dumps(value) for name, value in json.loads((run / RESULT).read_text()).items()}
        lines = [f'"{name}": {text}' for name, text in (content | values).items()]
        (run / RESULT).write_text("{" + ", ".join(lines) + "}")

    return broken


def row(**values: str) -> Break:
    """One more row in the metrics."""
    whole = {"update": "100", "env_steps": "0", "name": '"eval/return_mean"', "value": "1.0"} | values
    text = "{" + ", ".join(f'"{name}": {value}' for name, value in whole.items()) + "}\n"
    return lambda run: (run / METRICS).open("a").write(text)


def is_no_file(name: str, make: Callable[[Path], object]) -> Break:
    def broken(run: Path) -> None:
        (run / name).unlink()
        make(run / name)

    return broken


BETAS = [
    *("high", "'0.3'", "[0.1, 0.3]", "null", ".inf", "-.inf", ".nan", "0", "-1", "1e308", "-1e308", HUGE, "9" * 25),
    *("true", "{a: 1}", "${nothing}", "${oc.env:HOME}", "0x" + "f" * 400, "1" * 5000, "[[[]]]", "", "1:30:00x"),
]
GOALS = ["long", "-1", "0", ".inf", "[1]", "1.5", HUGE, "true", "{}x"]
STATUSES = ['["finished"]', "null", "3", '"well"', '{"a": 1}', "true"]
ERRORS = ['["no"]', "3", "{}"]
RETURNS = ['"many"', "[[1, 2], [3]]", '["1"]', "[1e308]", f"[{HUGE}]", '{"a": 1}', "3", "[true]", "[-1e308, 1]"]
MEASURED = ["[]", '"x"', "null", '{"a": "x"}', '{"a": [1]}', '{"a": 1e308}', f'{{"a": {HUGE}}}', '{"a": true}']
COUNTS = ['"x"', "-1", "1.5", "[1]", HUGE, "null", "true", "1" * 5000]
DEEP = "[" * 2000 + "]" * 2000
FILES = {
    "a pipe": os.mkfifo,
    "a folder": Path.mkdir,
    "endless": lambda path: path.symlink_to("/dev/zero"),
}
BROKEN: dict[str, Break] = {
    **{f"beta {text[:20]}": config(agent=f"{{_target_: awr_exp.agents.awr.AWR, beta: {text}}}") for text in BETAS},
    **{f"updates {text[:20]}": config(trainer=f"{{updates: {text}}}") for text in GOALS},
    **{f"status {text}": result(status=text) for text in STATUSES},
    **{f"error {text}": result(error=text) for text in ERRORS},
    **{f"returns {text[:20]}": result(returns=text) for text in RETURNS},
    **{f"metrics {text[:20]}": result(metrics=text) for text in MEASURED},
    **{f"update {text[:20]}": result(update=text) for text in COUNTS},
    "env_steps": result(env_steps='"x"'),
    **{f"{name} of {HUGE[:9]}": row(**{name: HUGE}) for name in ("update", "env_steps", "value")},
    **{f"{name} of many digits": row(**{name: "1" * 5000}) for name in ("update", "env_steps", "value")},
    "value 1e308": row(value="1e308"),
    "value -1e308": row(value="-1e308", name='"train/ess"'),
    "a line without an end": lambda run: (run / METRICS).open("a").write("x" * 10**6),
    "no configuration": lambda run: (run / CONFIG).unlink(),
    **{
        f"{name} {what}": holds(name, text)
        for name, text, what in [
            (CONFIG, "[1, 2]", "a list"),
            (CONFIG, "text", "a text"),
            (CONFIG, "", "empty"),
            (CONFIG, ": [", "torn"),
            (CONFIG, b"\xff\xfe\x00", "bytes"),
            (CONFIG, "a: \x00", "with a NUL"),
            (CONFIG, "a: 1\n---\nb: 2\n", "two"),
            (CONFIG, "a: " + DEEP, "deep"),
            (CONFIG, "".join(f"{' ' * n}a:\n" for n in range(400)), "deep in blocks"),
            (CONFIG, BOMB, "a bomb"),
            (CONFIG, "a: !!python/object/apply:os.system [ls]", "with a tag"),
            (CONFIG, "a: !!binary eA==", "with bytes"),
            (CONFIG, "? [1, 2]\n: 3\n", "with a list for a key"),
            (CONFIG, "a: " + "x" * 10**6, "large"),
            (RESULT, "[]", "a list"),
            (RESULT, "3", "a number"),
            (RESULT, '{"status": "fini', "torn"),
            (RESULT, "", "empty"),
            (RESULT, b"\xff", "bytes"),
            (RESULT, '{"status": ' + "[" * 20000 + "]" * 20000 + "}", "deep"),
        ]
    },
    **{f"{name} {what}": is_no_file(name, make) for name in (CONFIG, RESULT, METRICS) for what, make in FILES.items()},
}  # fmt: skip


@pytest.mark.usefixtures("unpainted")
def test_what_is_broken_is_left_out_with_a_line(tmp_path: Path) -> None:
    for number in range(3):
        make_run(tmp_path / f"good{number}", 0.3, number, float(number))
    names = {f"bad{number}": break_it for number, break_it in enumerate(BROKEN.values())}
    for name, break_it in names.items():
        make_run(tmp_path / name, 0.1, 0, 100.0)
        break_it(tmp_path / name)
    ((compared,), left_out) = comparison.load([tmp_path])
    said = {name: [line for line in left_out if line.startswith(f"{tmp_path / name} is left out: ")] for name in names}
    kinds = dict(zip(names, BROKEN, strict=True))
    assert [kinds[name] for name, lines in said.items() if len(lines) != 1] == []
    assert len(left_out) == len(names)
    assert not any("\n" in line or len(line) > 600 for line in left_out)
    assert {result.run.folder.name for result in compared.found} == {"good0", "good1", "good2"}
    text = text_of(page.write([tmp_path], tmp_path / "out")[0])
    assert text.count("is left out: ") == len(names)


def test_if_nothing_can_be_read_one_line_says_so(tmp_path: Path) -> None:
    for number in range(2):
        make_run(tmp_path / str(number), 0.1, 0, 1.0)
        (tmp_path / str(number) / RESULT).write_text("[]")
    with pytest.raises(UserError, match=r"holds no results that can be read \(and 1 more\): .*not a mapping$"):
        comparison.load([tmp_path])


@pytest.mark.usefixtures("unpainted")
def test_an_own_agents_beta_is_its_own_affair(tmp_path: Path) -> None:
    for number, beta in enumerate(("auto", None, [1, 2])):
        make_run(tmp_path / str(number), 0.1, 0, float(number), agent={"_target_": "mine.Agent", "beta": beta})
    ((compared,), left_out) = comparison.load([tmp_path])
    assert left_out == []
    assert verdict.answer(compared).startswith("Use beta=[1, 2]")
    page.write([tmp_path], tmp_path / "out")


ODD = [
    "<script>alert(1)</script>",
    "\ud800",
    "$x_{$",
    "a\nb\r\0\x1b[2Jc",
    "_hidden",
    "x" * 5000,
    "名前🎲",
    "=cmd()",
    "%s{0}\\",
]


def test_odd_names_are_shown_and_no_more(tmp_path: Path) -> None:
    for number, text in enumerate(ODD):
        folder = tmp_path / (f"{number}<b>$" if number % 2 else f"{number}&'\"")
        make_run(folder, 0.1, 0, float(number), data=f"a/{text}" if number > 3 else "a/b", note=text, network={text: 1})
    path, answers = page.write([tmp_path], tmp_path / "out")
    shown = text_of(path)
    assert "<script>alert" not in shown
    assert "<b>$" not in shown
    assert all(answer.isprintable() for answer in answers)


FORMULAS = ["=cmd|' /C calc'!A0", "+1+1", "-1+cmd", "@SUM(A1)", "\t=1"]


@pytest.mark.usefixtures("unpainted")
def test_a_spreadsheet_computes_nothing_of_a_run(tmp_path: Path) -> None:
    for number, text in enumerate(FORMULAS):
        make_run(tmp_path / str(number), 0.1, 0, -1.0 - number, note=text)
    rows = list(csv.reader((page.write([tmp_path], tmp_path / "out")[0].with_name("report.csv")).open()))
    texts = [cell for row in rows for cell in row if cell.startswith(tables.FORMULA)]
    # Numbers stay numbers.
    assert {float(text) for text in texts} == {-1.0, -2.0, -3.0, -4.0, -5.0}
    assert {f"'{text}" for text in FORMULAS} <= {cell for row in rows for cell in row}


@pytest.mark.usefixtures("unpainted")
def test_a_report_goes_through_no_link_of_a_sweep(tmp_path: Path) -> None:
    make_run(tmp_path / "sweep" / "0", 0.1, 0, 1.0)
    (tmp_path / ".bashrc").write_text("mine")
    (tmp_path / "home").mkdir()
    (tmp_path / "sweep" / ".report.csv.tmp").symlink_to(tmp_path / ".bashrc")
    page.write([tmp_path / "sweep"], tmp_path / "sweep")
    (tmp_path / "sweep" / "report").rename(tmp_path / "elsewhere")
    (tmp_path / "sweep" / "report").symlink_to(tmp_path / "home")
    with pytest.raises(UserError, match="report is a link"):
        page.write([tmp_path / "sweep"], tmp_path / "sweep")
    assert (tmp_path / ".bashrc").read_text() == "mine"
    assert not list((tmp_path / "home").iterdir())


PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
ANYTHING = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)
CONFIGS = st.fixed_dictionaries(
    {},
    optional={
        "agent": ANYTHING | st.fixed_dictionaries({"beta": ANYTHING, "max_weight": ANYTHING}),
        "trainer": ANYTHING | st.fixed_dictionaries({"updates": ANYTHING, "envs": ANYTHING}),
        "dataset": ANYTHING | st.fixed_dictionaries({"id": ANYTHING}),
        **{name: ANYTHING for name in ("env", "seed", "network", "objective", "schedule", "resume_policy")},
    },
)
ROWS = st.fixed_dictionaries(
    {
        "update": st.integers() | PLAIN,
        "env_steps": st.integers() | PLAIN,
        "name": st.sampled_from(["eval/return_mean", "train/ess", "train/std_advantage"]) | st.text(max_size=5),
        "value": st.floats() | PLAIN,
    }
)
RESULTS = ANYTHING | st.fixed_dictionaries(
    {
        "status": st.sampled_from(["finished", "failed", "pruned"]) | ANYTHING,
        "error": ANYTHING,
        "metrics": ANYTHING,
        "returns": st.lists(st.floats(), max_size=3) | ANYTHING,
        "update": st.integers(0, 200) | ANYTHING,
    }
)


@hypothesis_settings(max_examples=60)
@given(data=st.data())
def test_anything_is_a_report_or_one_line(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("any")
    for number in range(2):
        make_run(folder / str(number), 0.1 * (number + 1), number, 1.0, **data.draw(CONFIGS))
        if data.draw(st.booleans()):
            (folder / str(number) / RESULT).write_text(json.dumps(data.draw(RESULTS)))
        with (folder / str(number) / METRICS).open("a") as file:
            file.writelines(f"{json.dumps(one)}\n" for one in data.draw(st.lists(ROWS, max_size=3)))
    try:
        compared, left_out = comparison.load([folder])
    except UserError:
        return
    assert len(left_out) == len(set(left_out))
    tables.as_csv(compared)
    for one in compared:
        assert verdict.answer(one)
        tables.groups(one)
    assert all(results.read(folder / str(number)).status for number in range(2))
