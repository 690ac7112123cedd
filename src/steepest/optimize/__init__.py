"""How a loss becomes new parameters. Searches and solvers are pure functions, tested alone."""

from .epochs import Epochs, Objective, Update, epochs

__all__ = ["Epochs", "Objective", "Update", "epochs"]
