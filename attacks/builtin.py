"""The built-in attacks: importing one registers it. A new attack is one file and one line here."""

from privhier.attacks.averaging import AveragingAttack as AveragingAttack
from privhier.attacks.cnn import CnnAttack as CnnAttack
from privhier.attacks.decensor import DecensorAttack as DecensorAttack
from privhier.attacks.decoder import DecoderAttack as DecoderAttack
from privhier.attacks.deep_prior import DeepPriorAttack as DeepPriorAttack
from privhier.attacks.embed_reconstructions import EmbedReconstructionsAttack as EmbedReconstructionsAttack
from privhier.attacks.fine_tune import FineTuneAttack as FineTuneAttack
from privhier.attacks.fine_tune_metric import FineTuneMetricAttack as FineTuneMetricAttack
from privhier.attacks.generative import GenerativeAttack as GenerativeAttack
from privhier.attacks.gradient_boosting import GradientBoostingAttack as GradientBoostingAttack
from privhier.attacks.inversion import InversionAttack as InversionAttack
from privhier.attacks.logistic_regression import LogisticRegressionAttack as LogisticRegressionAttack
from privhier.attacks.mlp import MlpAttack as MlpAttack
from privhier.attacks.nearest_neighbors import NearestNeighbors as NearestNeighbors
from privhier.attacks.property import MixtureAttack as MixtureAttack
from privhier.attacks.rbf_kernel import RbfKernelAttack as RbfKernelAttack
from privhier.attacks.substitute import SubstituteAttack as SubstituteAttack
from privhier.attacks.table import TableAttack as TableAttack
from privhier.attacks.verification import MetricAttack as MetricAttack
