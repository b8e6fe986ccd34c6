"""Train split, sanitize, attack, prove, compare: privacy research on face-attribute networks."""

__version__ = "0.1.0"
