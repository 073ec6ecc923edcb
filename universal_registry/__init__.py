"""Universal Registry: one registry whose every change arrives where it is needed."""

__version__ = "0.1.0"
