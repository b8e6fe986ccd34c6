"""The built-in data sets: importing one registers it. A new data set is one file and one line here."""

from privhier.datasets.arrays import Arrays as Arrays
from privhier.datasets.att_faces import AttFaces as AttFaces
from privhier.datasets.celeba import CelebA as CelebA
from privhier.datasets.fairface import FairFace as FairFace
from privhier.datasets.folder import Folder as Folder
from privhier.datasets.lfw import LFW as LFW
from privhier.datasets.synthetic import Synthetic as Synthetic
from privhier.datasets.utkface import UTKFace as UTKFace
