"""purelm: language models as pure functions of (parameters, inputs), in JAX and Flax."""

__version__ = "0.1.0"
