"""What shapes the edge's objective. A new defense is one file and one import line here."""

from __future__ import annotations

from privhier.defenses import gradient_reversal, max_entropy, none

REGISTERED = (gradient_reversal, max_entropy, none)
"""The modules whose import registers our own defenses."""
