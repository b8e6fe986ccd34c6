"""Train split, sanitize, attack, prove, compare: privacy research on face-attribute networks.

Importing it limits how long OpenMP's threads spin (``privhier.process.openmp``): before torch is loaded.
"""

from privhier.process.openmp import limit_spinning

__version__ = "0.1.0"

limit_spinning()
