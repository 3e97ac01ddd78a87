"""Sweeps: which jobs train together, and the Hydra plugins that do it."""

from hydra.core.plugins import Plugins


def register() -> None:
    """Make `hydra/launcher=fused` and the sweepers `grid` and `optuna` known to Hydra."""
    # Before our own imports: its first call executes Hydra's plugin modules anew, and would replace the base class.
    known = Plugins.instance().class_name_to_class
    from awr_exp.sweep.launcher import Fused
    from awr_exp.sweep.sweeper import Grid
    from awr_exp.sweep.tuner import Tuner

    for plugin in (Fused, Grid, Tuner):
        # Hydra instantiates plugins of this namespace only, and a package of its own in there would be scanned, and
        # imported, by every Hydra program of the environment.
        known[f"hydra_plugins.awr_exp.{plugin.__name__}"] = plugin
