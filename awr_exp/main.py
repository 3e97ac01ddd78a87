"""Compose an experiment, train, and say what came of it: `python -m awr_exp.main agent.beta=0.05`."""

import logging
import sys
from pathlib import Path
from runpy import run_module
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.types import RunMode
from omegaconf import DictConfig

from awr_exp import arguments, command, config, messages, results, run_folder, surroundings, sweep
from awr_exp.errors import UserError
from awr_exp.help import SUBCOMMANDS
from awr_exp.training import progress

log = logging.getLogger(__name__)
command.register()
sweep.register()


@hydra.main(version_base="1.3", config_path=str(config.CONF), config_name="config")
def run(cfg: DictConfig) -> float | None:
    """Train one run; returns the final value of `cfg.objective`, or None where it was not measured."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    # A log on a full disk costs the log alone: no tracebacks about it.
    logging.raiseExceptions, content = False, None
    progress.heard()
    try:
        command.check_complete(HydraConfig.get())
        cfg = command.resumed(cfg)
        content = command.content(cfg)
        if cfg.resume is None and results.finished(before := results.read(folder), content):
            log.log(progress.CLOSING, "nothing left to train: %s", folder)
            return before.metrics.get(cfg.objective)
        outcome = _train(folder, cfg, content)
        failure = outcome.error
    except (SystemExit, KeyboardInterrupt):
        if content and results.begun(folder):
            log.log(progress.CLOSING, "go on with: %s", command.to_go_on(folder, cfg))
        raise
    except UserError as error:
        log.error("error: %s", error)
        failure = error
    except Exception:
        # Hydra prints the first failure of a sweep only: each job's own log must have its own.
        log.exception("this run failed; please report it if the reason is not yours")
        raise
    if failure is None:
        return outcome.metrics.get(cfg.objective)
    if content and any((folder / part / "checkpoint").exists() for part in ("", "baseline", "offline")):
        log.log(progress.CLOSING, "go on with: %s", command.to_go_on(folder, cfg))
    if HydraConfig.get().mode == RunMode.RUN:
        run_folder.forget(folder)
        sys.exit(1)
    raise CompactHydraException(f"error: {failure}")


def _train(folder: Path, cfg: DictConfig, content: dict[str, Any]) -> results.Outcome:
    """Train the run that has this folder, from a configuration and its values."""
    # Everything heavy is imported here, so that --help and a mistake are answered at once.
    from awr_exp import experiment
    from awr_exp.training.run import Run

    if cfg.resume is None:
        # Meanwhile somebody else may have begun in the same folder, and kept another configuration there.
        run_folder.check_kept(folder, HydraConfig.get().overrides.task, cfg)
    else:
        run_folder.note_changes(folder, HydraConfig.get().overrides.task, cfg)
    (outcome,) = experiment.train([Run(folder, config=content)])
    return outcome


def main() -> None:
    """The command `awr-exp`."""
    surroundings.begin()
    if sys.argv[1:2] and sys.argv[1] in SUBCOMMANDS:
        # As `python -m awr_exp.report` does.
        run_module(SUBCOMMANDS[sys.argv.pop(1)].module, run_name="__main__")
        return
    sys.argv[1:] = arguments.to_resume(arguments.understood(sys.argv[1:]))
    with messages.plain_errors(), surroundings.interruptible():
        run()


if __name__ == "__main__":
    main()
