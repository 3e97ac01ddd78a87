"""Other forms of networks and heads, for where a tensor framework takes longer than the arithmetic."""

from typing import Any


class Forms:
    """A network or head that may offer other forms of itself, each made of its parameters as they are now.

    A form is of the class that defines it alone, and nothing inherits it: who inherits the rest may act otherwise.
    """

    def numpy(self, parameters: Any) -> Any:
        """What maps arrays as this maps tensors (see `awr_exp.networks.numpy_policy`); None: there is no such form."""
        return None

    def native(self, parameters: Any) -> Any:
        """What the C++ of `awr_exp.training.native` has to know of it; None: it has no code for this."""
        return None

    def __init_subclass__(cls) -> None:
        for name in ("numpy", "native"):
            if name not in vars(cls) and getattr(cls, name) is not getattr(Forms, name):
                setattr(cls, name, getattr(Forms, name))
