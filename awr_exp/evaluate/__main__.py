"""The command: `python -m awr_exp.evaluate outputs/runs/<date>/<time> episodes=100`."""

import os
import sys
from argparse import ArgumentError, ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from awr_exp import arguments, command, config, messages, results, settings, shell
from awr_exp.errors import UserError
from awr_exp.surroundings import interruptible, usual
from awr_exp.vocabulary import near

command.register()

OPTIONS = "--video", "--json"


@hydra.main(version_base="1.3", config_path=str(config.CONF), config_name="evaluation")
def run(cfg: DictConfig) -> None:
    try:
        content = settings.values(cfg, settings.EVALUATION)
        check(content)
        errors = evaluate(found(content["runs"]), content)
    except UserError as error:
        errors = [str(error)]
    if errors:
        sys.exit("\n".join(f"error: {error}" for error in errors))


def found(paths: Sequence[str]) -> list[Path]:
    """The runs and checkpoint files in these places, those of a sweep by number. Raises UserError where are none."""
    every: dict[Path, None] = {}
    for path in map(Path, paths):
        if not path.exists():
            raise UserError(f"{path} is not there: name the folder of a run or a sweep, or a checkpoint file")
        own = [path] if path.is_file() or (path / "checkpoint").exists() else results.folders(path)
        if not own:
            raise UserError(f"there is no run in {path}: name the folder of a run or a sweep, or a checkpoint file")
        every |= dict.fromkeys(own)
    return list(every)


def check(content: dict[str, Any]) -> None:
    """Raises UserError for what is wrong with a command and can be said before anything heavy is imported."""
    if not content["runs"]:
        raise UserError("name what to evaluate: the folder of a run or a sweep, or a checkpoint file")
    content["best_of"] = settings.samples(content["sample"], content["best_of"])
    place = content["json"]
    if place not in (None, "-") and (Path(place).is_dir() or not os.access(Path(place).absolute().parent, os.W_OK)):
        raise UserError(f"{place} cannot be written: choose another file with --json")


@usual()
def evaluate(paths: Sequence[Path], content: dict[str, Any]) -> list[str]:
    """Play with policies, and print and write what came of it; what went wrong with single ones, a line each.

    Raises UserError where nothing can be evaluated, or not as it was asked for.
    """
    from awr_exp.envs.rendering import drawn
    from awr_exp.evaluate import play, summary
    from awr_exp.evaluate.entries import Entry, entry
    from awr_exp.training import accelerate, mp4

    if content["video"]:
        mp4.encoder()
    # Products are as exact as where the runs were trained.
    accelerate.start("cpu", None)
    entries: list[Entry] = []
    errors: list[str] = []
    for path in paths:
        try:
            entries.append(entry(path, content))
        except UserError as error:
            errors.append(str(error))
    groups = play.groups(entries)
    for group in groups if content["video"] else ():
        # What cannot be drawn is said before anything is played.
        drawn(group[0].make_env)
    played = play.every(groups, content["episodes"], content["seed"], content["sample"])
    rows = [summary.numbers(one, played[one.path], content) for one in entries if not played[one.path].error]
    errors += [f"{path}: {one.error}" for path, one in played.items() if one.error]
    if rows and content["json"] != "-":
        print(summary.table(rows), *summary.notes(rows), sep="\n")
    if rows and content["json"]:
        summary.write(rows, content["json"])
    for path, taken in play.films(groups, played, content) if content["video"] else ():
        if isinstance(taken, UserError):
            errors.append(str(taken))
        else:
            print(f"film: {path} (return {taken:.1f})", file=sys.stderr)
    return errors


def in_our_grammar(words: Sequence[str]) -> list[str]:
    """The command line with runs, --video and --json as settings. Ends with one line where that means nothing."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--video", action="store_true")
    parser.add_argument("--json")
    try:
        options, rest = parser.parse_known_args(words)
    except ArgumentError as error:
        sys.exit(f"error: {error}")
    if wrong := next((word for word in rest if word.startswith("--") and near(word, OPTIONS)), None):
        sys.exit(f"error: there is no option {wrong}{near(wrong, OPTIONS)}")
    runs = [
        word
        for before, word in zip(["", *rest], rest, strict=False)
        if before not in shell.OPTIONS and (Path(word).exists() or not (word.startswith("-") or "=" in word))
    ]
    given = [shell.override("runs", runs)] if runs else []
    given += ["video=true"] if options.video else []
    given += [shell.override("json", options.json)] if options.json else []
    return [*(word for word in rest if word not in runs), *given]


def main() -> None:
    sys.argv[1:] = arguments.understood(in_our_grammar(sys.argv[1:]))
    with messages.plain_errors(settings.EVALUATION.own), interruptible():
        run()


if __name__ == "__main__":
    main()
