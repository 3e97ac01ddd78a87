"""A Minari data set from any policy: `python -m awr_exp.collect policy=random env=hopper dataset_id=hopper/mine-v0`."""

import hashlib
import json
import shutil
import sys
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import gymnasium
import hydra
import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig

from awr_exp import arguments, command, config, messages, reading, results, settings
from awr_exp.envs import behaviour, fit
from awr_exp.envs.build import clips, opened, task
from awr_exp.envs.episode import Act, at_random, play_seeded
from awr_exp.envs.fleet import InProcess
from awr_exp.errors import UserError
from awr_exp.surroundings import interruptible, usual

command.register()

WITHOUT_RUN = "random", "built-in"
"""Policies that no run has learnt."""


@hydra.main(version_base="1.3", config_path=str(config.CONF), config_name="collection")
def run(cfg: DictConfig) -> None:
    try:
        content = settings.values(cfg, settings.COLLECTION)
        # As in main: a mistake is answered before anything heavy is imported.
        from awr_exp.data import export

        export.check_new(content["dataset_id"], "dataset_id")
        collect(content)
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("stopped: the same command goes on", file=sys.stderr)
        raise


@usual()
def collect(content: dict[str, Any]) -> None:
    """Play what is missing of the episodes, then write the data set.

    Episodes are kept in a folder beside it until then, each from a seed of its own: it is the same data set however
    often it was stopped. Raises UserError where something is wrong.
    """
    from awr_exp.data import export
    from awr_exp.data.minari import root
    from awr_exp.data.recording import Recording
    from awr_exp.policy import load

    id = content["dataset_id"]
    make_env = _environment(content)
    spec, played = task(make_env), task(make_env, as_played=True)
    with opened(make_env) as env:
        export.check_env(env)
    trained = None if content["policy"] in WITHOUT_RUN else load(content["policy"], trust=content["trust"])
    act = _policy(content, trained, spec, played, env)
    # One that has learnt on since is another policy.
    content = content | {"parameters": trained and hashlib.sha256(trained.theta.numpy().tobytes()).hexdigest()}
    folder = root() / Path(id).parent / f".collecting-{Path(id).name}"
    try:
        with results.file_lock(folder):
            recording = Recording(folder, played, 1)
            failures = _play(content, recording, folder, act, InProcess(make_env, spec.obs_dim))
            returns, steps = _write(content, recording, make_env, env)
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({error.strerror}): the same command goes on once it can, or set "
            "MINARI_DATASETS_PATH to another folder"
        ) from None
    print(f"{id}: {len(returns)} episodes, {steps} steps, "
          f"return {np.mean(returns):.1f} ± {np.std(returns):.1f}, in {root() / id}")  # fmt: skip
    if failures:
        print(f"the environment failed {failures} times: those episodes are left out")
    print(f"train on it: {export.command(id, env, clips(make_env))}")


def _play(content: dict[str, Any], recording: Any, folder: Path, act: Act, fleet: InProcess) -> int:
    """Add to the recording what it lacks; how often the environment failed meanwhile.

    Raises UserError if it was begun with other settings, and OSError, as on a full disk.
    """
    from awr_exp.training.progress import Bar

    id, wanted = content["dataset_id"], content | {"episodes": None}
    place = folder / "settings.json"
    if not place.exists():
        results.atomic_write(place, json.dumps(wanted, sort_keys=True).encode())
    begun = reading.read_json(place)
    if not isinstance(begun, dict) or begun | {"parameters": wanted["parameters"]} != wanted:
        raise UserError(f"{id} was begun with other settings: give the same ones to go on, or delete {folder}")
    if begun.get("parameters", wanted["parameters"]) != wanted["parameters"]:
        raise UserError(
            f"{content['policy']} has learnt on since {id} was begun with it: delete {folder} to begin anew"
        )
    done = recording.keep_whole()
    with Bar(f"collecting {id}", content["episodes"], done) as bar, closing(fleet):
        for episode in range(done, content["episodes"]):
            played = play_seeded(fleet, act, content["seed"], episode)
            mark = np.arange(len(played["reward"])) == 0
            recording.add(**{name: part[:, None] for name, part in (played | {"mark": mark}).items()})
            bar.advance(episode + 1)
    return fleet.failures


def _write(content: dict[str, Any], recording: Any, make_env: Any, env: gymnasium.Env) -> tuple[list[float], int]:
    """Write what is recorded as the data set; the returns of its episodes, and their steps together.

    Raises UserError where another one of its id is there by now.
    """
    from awr_exp.data import export
    from awr_exp.data.minari import root
    from awr_exp.training.recorder import reference

    id, count = content["dataset_id"], content["episodes"]
    rewards = [episode["reward"].astype(np.float64) for episode in islice(recording.episodes(), count)]
    returns = [float(own.sum()) for own in rewards]
    scores = reference(make_env, max([float(np.mean(returns)), *_known_best(content)]))
    about = f"Episodes by {content['policy']} with noise {content['noise']}."
    texts = {"algorithm_name": str(content["policy"]), "description": about}
    if not export.create(id, islice(recording.episodes(), count), recording.spec, env, scores, **texts):
        raise UserError(
            f"another {id} is there by now: once {root() / id} is deleted or moved, the same command writes this one"
        )
    return returns, sum(map(len, rewards))


def _environment(content: dict[str, Any]) -> Any:
    """What makes the chosen environment, or that of the run whose policy plays."""
    from awr_exp.building import place

    folder = Path(content["policy"])
    if content.get("env") is not None:
        of_run = content["policy"] not in WITHOUT_RUN and (config.owner(folder) / ".hydra").is_dir()
        run = config.saved_values(folder, content["trust"], "dataset") if of_run else {}
        return place.chosen(content["env"], run.get("dataset"))
    if content["policy"] not in WITHOUT_RUN and not folder.exists():
        raise UserError(f"policy={folder} is not there: give random, built-in, or a run's folder or checkpoint file")
    if not (config.owner(folder) / ".hydra").is_dir():
        raise UserError("env is missing: choose where to play, such as env=pendulum")
    return place.of_run(config.saved_values(folder, content["trust"], "env", "dataset"))


def _policy(content: dict[str, Any], trained: Any, spec: Any, played: Any, env: gymnasium.Env) -> Act:
    """The policy with its noise, for the task as its spaces say and as it is played; trained: that of a run, if any."""
    name, noise = str(content["policy"]), content["noise"]
    if spec.discrete and noise > 1:
        raise UserError(f"noise is {noise}; of discrete actions it is a share: give a number from 0 to 1")
    anything = at_random(spec)
    if name == "random":
        return anything
    own: Act
    if name == "built-in":
        id = env.spec.id if env.spec else ""
        if id not in behaviour.BUILT_IN:
            known = ", ".join(behaviour.BUILT_IN)
            raise UserError(f"policy=built-in is for {known}, not for {id}: take policy=random or a run's folder")
        own = behaviour.BUILT_IN[id](0.0)
    else:
        fit.check_policy(env, name, trained.spec)
        if trained.spec.chunk > 1:
            raise UserError(
                f"the policy of {name} decides upon {trained.spec.chunk} steps at once, and data are collected step by "
                "step: take the policy of a run with dataset.action_chunk=1"
            )
        own = trained.act_on_one(content["sample"])
    if spec.discrete:
        return lambda obs, rng: anything(obs, rng) if rng.random() < noise else own(obs, rng)
    span = np.subtract(spec.action_high, spec.action_low, dtype=np.float32)
    half = np.where(np.isfinite(span), span / 2, 1)
    low, high = np.array(played.action_low, np.float32), np.array(played.action_high, np.float32)

    def noisy(obs: NDArray[np.float32], rng: np.random.Generator) -> NDArray[Any]:
        action = own(obs, rng)
        return np.clip(action + noise * half * rng.standard_normal(len(half)), low, high).astype(np.float32)

    return noisy


def _known_best(content: dict[str, Any]) -> list[float]:
    """The best return of the run whose policy plays, where it plays in the run's own environment; else nothing."""
    from awr_exp.training import checkpoint

    folder = Path(str(content["policy"]))
    found = checkpoint.best(folder) if content.get("env") is None and folder.is_dir() else None
    return [found[1]["best"]] if found and np.isfinite(found[1]["best"]) else []


def main() -> None:
    sys.argv[1:] = arguments.understood(sys.argv[1:])
    # A signal is as Ctrl-C: what is half written is taken away.
    with messages.plain_errors(settings.COLLECTION.own), interruptible():
        run()


if __name__ == "__main__":
    main()
