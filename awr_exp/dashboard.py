"""`awr-exp dashboard`: a W&B workspace that shows a sweep at a glance, made from code."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from awr_exp.errors import UserError

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
    """Save the workspace to W&B and print its address; without a key, write its definition to a file."""
    parser = argparse.ArgumentParser(prog="awr-exp dashboard", description=(__doc__ or "").partition(": ")[2])
    parser.add_argument("--project", default="awr_exp")
    parser.add_argument("--entity", help="user or team; your default one")
    parser.add_argument("--group", help="show this group only, such as a sweep's: <date>/<time>")
    parser.add_argument("--out", type=Path, default=Path("dashboard.json"), help="where the definition goes")
    options = parser.parse_args(arguments)
    try:
        print(_make(options.project, options.entity, options.group, options.out))
    except UserError as error:
        sys.exit(f"error: {error}")


def _make(project: str, entity: str | None, group: str | None, out: Path) -> str:
    from awr_exp.training.wandb_settings import has_key

    made = workspace(entity or "you", project, group)
    if not has_key():
        try:
            out.write_text(json.dumps(definition(made), indent=1) + "\n")
        except OSError as error:
            raise UserError(f"{out} cannot be written: {error.strerror or error}; choose another with --out") from None
        return f"no W&B key is configured: run `wandb login` and this command again. The definition is in {out}"
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
