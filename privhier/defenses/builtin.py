"""The built-in defenses: importing one registers it. A new defense is one file and one line here."""

from privhier.defenses.cell_means import CellMeans as CellMeans
from privhier.defenses.disco import Disco as Disco
from privhier.defenses.erase import Erase as Erase
from privhier.defenses.gain import Gains as Gains
from privhier.defenses.gradient_reversal import GradientReversal as GradientReversal
from privhier.defenses.max_entropy import MaxEntropy as MaxEntropy
from privhier.defenses.none import NoDefense as NoDefense
from privhier.defenses.reconstruction import Reconstruction as Reconstruction
