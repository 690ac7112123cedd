"""Networks by name: what a system takes as its `model` on environments, in Python and on the command line."""

from .convolution import conv
from .film import film
from .gated import gru
from .hyper import hyper
from .network import Network
from .perceptron import mlp
from .s5 import s5
from .transformer import transformer

__all__ = ["Network", "conv", "film", "gru", "hyper", "mlp", "s5", "transformer"]
