"""Imports point down only, and frameworks stay at the edge."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "awr_exp"
ORDER = [
    "errors",
    "reading",
    "machine",
    "surroundings",
    "shell",
    "ranges",
    "signatures",
    "vocabulary",
    "guard",
    "layout",
    "spec",
    "types",
    "seeding",
    "math",
    "networks",
    "agents",
    "envs",
    "data",
    "results",
    "origin",
    "metadata",
    "config",
    "settings",
    "help",
    "arguments",
    "messages",
    "run_folder",
    "command",
    "training",
    "trained",
    "policy",
    "exporting",
    "building",
    "experiment",
    "report",
    "describe",
    "listing",
    "compare",
    "dashboard",
    "sweep",
    "collect",
    "importing",
    "evaluate",
    "main",
]
FOREIGN = {
    "hydra": {
        "shell",
        "arguments",
        "messages",
        "command",
        "policy",
        "building",
        "sweep",
        "collect",
        "evaluate",
        "main",
    },
    "omegaconf": {
        "arguments",
        "messages",
        "run_folder",
        "config",
        "settings",
        "command",
        "sweep",
        "collect",
        "evaluate",
        "main",
    },
    "wandb": {"training", "dashboard"},
    "wandb_workspaces": {"dashboard"},
    "tensorboard": {"training"},
    "mlflow": {"training"},
    "optuna": {"sweep"},
    "joblib": {"sweep"},
    "submitit": {"sweep"},
    "ray": {"sweep"},
    "cloudpickle": {"envs"},
    "mujoco": {"envs"},
    "gymnasium": {"data", "envs", "training", "collect", "importing"},
    "minari": {"data"},
    "pyarrow": {"importing"},
    "rich": {"training"},
    "jinja2": {"report"},
    "plotly": {"report"},
    "onnx": {"exporting"},
    "onnxruntime": {"exporting"},
    "PIL": {"data", "training"},
    "imageio_ffmpeg": {"training"},
}


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    layer = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if layer == "__init__":
        return
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "awr_exp" and len(parts) > 1 and parts[1] in ORDER:
            assert ORDER.index(parts[1]) <= ORDER.index(layer), f"{layer} imports {name}"
        if parts[0] in FOREIGN:
            assert layer in FOREIGN[parts[0]], f"{layer} imports {name}"


def at_run_time(tree: ast.AST) -> Iterator[str]:
    """Whatever a module imports, but for types alone: in functions, too."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (name for alias in node.names for name in (node.module, f"{node.module}.{alias.name}"))
        else:
            yield from at_run_time(node)


def test_no_modules_import_one_another_in_a_circle() -> None:
    """A CycleError names those that do."""
    paths = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}
    graph = {name: paths.keys() & {*at_run_time(ast.parse(path.read_text()))} for name, path in paths.items()}
    assert graph["awr_exp.main"] > {"awr_exp.experiment"}
    TopologicalSorter(graph).prepare()


def test_an_agent_stays_short() -> None:
    for path in (PACKAGE / "agents").glob("*.py"):
        if path.stem != "agent":
            assert len(path.read_text().splitlines()) <= 120, path
