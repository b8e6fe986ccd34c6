"""The built-in defenses: importing one registers it. A new defense is one file and one line here."""

from privhier.defenses.ceb import ConditionalEntropyBottleneck as ConditionalEntropyBottleneck
from privhier.defenses.cell_means import CellMeans as CellMeans
from privhier.defenses.disco import Disco as Disco
from privhier.defenses.distance_correlation import DistanceCorrelation as DistanceCorrelation
from privhier.defenses.erase import Erase as Erase
from privhier.defenses.focal_entropy import FocalEntropy as FocalEntropy
from privhier.defenses.gain import Gains as Gains
from privhier.defenses.gradient_reversal import GradientReversal as GradientReversal
from privhier.defenses.hsic import Hsic as Hsic
from privhier.defenses.kernel_closed_form import KernelClosedForm as KernelClosedForm
from privhier.defenses.leak_budget import LeakBudget as LeakBudget
from privhier.defenses.letters_balance import LettersBalance as LettersBalance
from privhier.defenses.max_entropy import MaxEntropy as MaxEntropy
from privhier.defenses.min_max import MinMax as MinMax
from privhier.defenses.none import NoDefense as NoDefense
from privhier.defenses.reconstruction import Reconstruction as Reconstruction
from privhier.defenses.sum import Sum as Sum
from privhier.defenses.vib import VariationalInformationBottleneck as VariationalInformationBottleneck
