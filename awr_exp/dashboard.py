"""`awr-exp dashboard`: a W&B workspace that shows a sweep at a glance, or without a key a page of this machine."""

import argparse
import json
import os
import sys
import webbrowser
from pathlib import Path
from typing import Any

from awr_exp import listing
from awr_exp.errors import UserError, unwritable

BETA = "agent.beta"
SECTIONS = {
    "Returns": {"return by beta": "eval/return_mean", "normalised score by beta": "eval/normalized_score"},
    "Critic": {"value loss": "train/value_loss", "explained variance": "train/explained_variance"},
    "Advantages and weights": {
        "mean_advantage": "train/mean_advantage",
        "mean_weight": "train/mean_weight",
        "effective sample size": "train/ess",
        "share clipped": "train/clipped",
        "share practically zero": "train/zero_weight",
    },
    "Throughput": {"updates per second": "train/updates_per_second"},
}
"""The metric of each panel, by section and title."""


def workspace(entity: str, project: str, group: str | None = None) -> Any:
    """The workspace: every panel shows mean and spread of the runs of each beta.

    group: of the runs to show, such as a sweep's; None for all. Raises UserError without wandb-workspaces.
    """
    try:
        import wandb_workspaces.reports.v2 as panels
        import wandb_workspaces.workspaces as workspaces
    except ImportError:
        raise UserError("a dashboard needs wandb-workspaces: pip install 'awr-exp[dashboard]'") from None

    spread: dict[str, Any] = {"groupby_aggfunc": "mean", "groupby_rangefunc": "stddev"}
    beta = panels.Config(BETA)

    def section(name: str, content: dict[str, str]) -> Any:
        plots: list[Any] = [
            panels.LinePlot(title=title, x="trainer/update", y=[metric], groupby=beta, **spread)
            for title, metric in content.items()
        ]
        return workspaces.Section(name=name, is_open=True, panels=plots)

    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=f"awr_exp {group}" if group else "awr_exp",
        sections=[section(name, content) for name, content in SECTIONS.items()],
        runset_settings=workspaces.RunsetSettings(
            groupby=[workspaces.Config(BETA)],
            filters=workspaces.And(workspaces.Metric("Group") == group) if group else [],
        ),
    )


def main(arguments: list[str] | None = None) -> None:
    """Save the workspace to W&B and print its address; without a key, or of a folder, show its report."""
    parser = argparse.ArgumentParser(prog="awr-exp dashboard", description=(__doc__ or "").partition(": ")[2])
    parser.add_argument(
        "folder", nargs="?", type=Path, metavar="FOLDER",
        help="show the report of this run or sweep on this machine; without a key, the newest one in outputs",
    )  # fmt: skip
    parser.add_argument("--project", default="awr_exp")
    parser.add_argument("--entity", help="user or team; your default one")
    parser.add_argument("--group", help="show this group only, such as a sweep's: <date>/<time>")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the workspace's definition there, as JSON")
    options = parser.parse_args(arguments)
    try:
        if options.out:
            print(_write(workspace(options.entity or "you", options.project, options.group), options.out))
        elif options.folder or not _has_key():
            print(_show(options.folder))
        else:
            print(_save(options.project, options.entity, options.group))
    except UserError as error:
        sys.exit(f"error: {error}")


def _has_key() -> bool:
    from awr_exp.training import wandb_settings

    return wandb_settings.has_key()


def _write(made: Any, out: Path) -> str:
    try:
        out.write_text(json.dumps(definition(made), indent=1) + "\n")
    except OSError as error:
        raise unwritable(out, error, "choose another with --out") from None
    return f"the definition of the workspace is in {out}"


def _show(folder: Path | None) -> str:
    """Write the report of a run or a sweep, by itself the newest one, and open it where there is a browser."""
    from awr_exp.report import page

    if folder is None:
        print("no W&B key is configured (`wandb login` adds one): this is the newest run or sweep in outputs")
        found = listing.entries(Path("outputs")) if Path("outputs").is_dir() else []
        folder = next((one.folder for one in found if one.status != listing.BROKEN), None)
    if folder is None:
        raise UserError("there are no runs in outputs: train one, or name the folder of one")
    path, answers = page.write([folder], page.place([folder]))
    # Without a display there are only browsers that take over the terminal.
    if os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        webbrowser.open(path.absolute().as_uri())
    return "\n".join([*answers, f"report: {path}"])


def _save(project: str, entity: str | None, group: str | None) -> str:
    made = workspace(entity or "you", project, group)
    import wandb

    try:
        made.entity = entity or wandb.Api().default_entity
        made.save()
    except Exception as error:
        raise UserError(f"W&B did not take the dashboard: {' '.join(str(error).split())}") from None
    return f"dashboard: {made.url}"


def definition(made: Any) -> Any:
    """What W&B would be sent, as JSON."""
    return json.loads(made._to_model().model_dump_json(by_alias=True, exclude_none=True))


if __name__ == "__main__":
    main()
