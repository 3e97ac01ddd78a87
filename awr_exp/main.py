"""Compose an experiment, train, and say what came of it: `python -m awr_exp.main agent.beta=0.05`."""

import logging
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException, InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from awr_exp import config
from awr_exp.errors import UserError

log = logging.getLogger(__name__)
config.register()


@hydra.main(version_base="1.3", config_path=str(config.CONF), config_name="config")
def run(cfg: DictConfig) -> float | None:
    """Train one run; returns the final value of `cfg.objective`, or None where it was not measured."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    try:
        cfg = config.resumed(cfg)
        config.check(cfg)
        content: Any = OmegaConf.to_container(cfg, resolve=True)
        return train(content, folder)
    except SystemExit:
        log.info("go on with: python -m awr_exp.main resume=%s", folder)
        raise
    except UserError as error:
        log.error("error: %s", error)
        if HydraConfig.get().mode == RunMode.RUN:
            sys.exit(1)
        raise CompactHydraException(str(error)) from None
    except Exception:
        # Hydra prints the first failure of a sweep only: each job's own log must have its own.
        log.exception("this run failed; please report it if the reason is not yours")
        raise


def main() -> None:
    """The command `awr-exp`."""
    config.check_arguments(sys.argv[1:])
    run()


def train(cfg: dict[str, Any], folder: Path) -> float | None:
    """Build the parts of a checked configuration, train in `folder`, and print what came of it."""
    # Everything heavy is imported here, so that --help and a mistake are answered at once.
    from awr_exp.policy import policy_facts
    from awr_exp.training import accelerate, checkpoint, closing
    from awr_exp.training.loggers import Jsonl, Many

    device = accelerate.start(cfg["device"], cfg["threads"])
    data = build(cfg["dataset"], device=device)
    make_env = build(cfg["env"], data=data.info, spec=data.spec)

    known = {"dataset/return_mean": data.info.return_mean}

    def fit(node: dict[str, Any], folder: Path, loggers: dict[str, Any], title: str) -> dict[str, float]:
        done = checkpoint.latest(folder)
        start: dict[str, Any] = done[1] if done else {"update": 0, "run_id": None}
        agent = build(node, spec=data.spec, seeds=[cfg["seed"]], device=device)
        agent.fit_normalizer(*data.obs_statistics())
        # metrics.jsonl is what resume, the curves and every report read: it is always written.
        logger = Many(
            [Jsonl(folder, update=start["update"] if done else -1)]
            + [
                build(part, folder=folder, config=cfg, update=start["update"], run_id=start["run_id"])
                for name, part in loggers.items()
                if name != "jsonl"
            ]
        )
        parts = {"agent": agent, "data": data, "make_env": make_env, "title": title}
        facts = policy_facts(data.spec, node) | {"run_id": logger.id}
        trainer = build(cfg["trainer"], loggers=[logger], folders=[folder], facts=[facts], **parts)
        if done:
            trainer.resume()
        else:
            logger.log(0, known)
        return closing.run(trainer, logger, folder)

    folder.mkdir(parents=True, exist_ok=True)
    baseline = fit(cfg["baseline"], folder / "baseline", {}, "baseline") if cfg.get("baseline") else None
    if baseline and "eval/return_mean" in baseline:
        known["baseline/return_mean"] = baseline["eval/return_mean"]
    result = fit(cfg["agent"], folder, cfg.get("logger") or {}, "training")
    closing.show(data.info, result, baseline, folder, cfg)
    return result.get(cfg["objective"])


def build(node: dict[str, Any], **parts: Any) -> Any:
    """The one place where a configuration becomes an object: calls its `_target_` with its values and `parts`."""
    try:
        return hydra.utils.instantiate(node, _partial_=True, _convert_="all")(**parts)
    except InstantiationException as error:
        raise UserError(f"{node['_target_']} cannot be built: {str(error).splitlines()[0]}") from error
    except TypeError as error:
        # A key that the constructor does not know, added with + or from an own yaml.
        if "argument" in str(error):
            raise UserError(f"{node['_target_']}: {error}") from error
        raise


if __name__ == "__main__":
    main()
