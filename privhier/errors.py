"""Typed errors. Each says which key, which value, which rule and what to do about it."""

from __future__ import annotations


def printable(text: str, *, keep: str = "") -> str:
    r"""``text`` as it may be shown, written to a file or sent on.

    Bytes of a file name that are not UTF-8 (Python holds them as lone surrogates, which no file of ours can
    store) and control characters (which a terminal would obey) are written as escapes; the rest stays.

    Args:
        text: Any text, for instance a file name as the system gave it.
        keep: Control characters that stay.

    Example:
        >>> print(printable("caf\udce9.jpg"))
        caf\xe9.jpg
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in keep else _escaped(one) for one in text)


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else ascii(character)[1:-1]


class PrivhierError(Exception):
    """Base of every error the toolkit raises on purpose.

    Args:
        key: The configuration key, file or argument at fault, e.g. ``"model.cut"``.
        value: The offending value, shown with ``repr``.
        rule: The rule it broke, as a statement.
        remedy: What to do, as an instruction.

    ``exit_code`` is what the command line returns: 2 for bad input.
    """

    exit_code = 2

    def __init__(self, *, key: str, value: object, rule: str, remedy: str) -> None:
        self.key = printable(key)
        self.value = value
        self.rule = printable(rule, keep="\n\t")
        self.remedy = printable(remedy, keep="\n\t")
        super().__init__(f"{self.key}: {value!r} - {self.rule}. {self.remedy}")


class PrivhierWarning(UserWarning):
    """Something that was settled in a way one may not expect, or that cannot be used; work goes on."""


class ConfigError(PrivhierError):
    """A configuration key or value that is not allowed."""


class UnknownNameError(ConfigError):
    """A name that is not in a registry; the message names the nearest known ones."""


class ContractError(PrivhierError):
    """Something registered that breaks the contract of its kind, or a plugin that does not load."""


class DataError(PrivhierError):
    """Data that is missing, malformed or too small for what was asked of it."""


class ReleaseError(PrivhierError):
    """Features that may not be released, e.g. non-finite ones."""

    exit_code = 1


class NonFiniteError(ReleaseError):
    """Features that are not finite numbers."""


class TrainingError(PrivhierError):
    """A training whose numbers are no longer finite; the message names the key to lower."""


class UplinkError(PrivhierError):
    """A message that is malformed, too large or not of the declared type."""


class CheckpointError(PrivhierError):
    """A run folder whose saved state does not fit the request."""


class OutputError(PrivhierError):
    """An output folder that exists already or cannot be written."""


class ResultError(PrivhierError):
    """A result that does not fit its schema."""


class GuaranteeError(PrivhierError):
    """A score above its ceiling, or a release the ledger did not see: a guarantee is wrong."""

    exit_code = 1


class TrackingError(PrivhierError):
    """A tracking server that does not answer."""


class InterruptedRunError(PrivhierError):
    """The user stopped a run; its state is kept."""
