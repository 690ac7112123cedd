"""Programs that a model wrote, held so that they can do no harm."""

from .box import Limits, Outcome, Sandbox, SandboxError
from .choice import candidates, sandbox, tried

__all__ = ["Limits", "Outcome", "Sandbox", "SandboxError", "candidates", "sandbox", "tried"]
