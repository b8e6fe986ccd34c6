"""The data sets by name. A new one is one file and one line here."""

from __future__ import annotations

from privhier.datasets.arrays import Arrays
from privhier.datasets.att_faces import AttFaces
from privhier.datasets.celeba import CelebA
from privhier.datasets.fairface import FairFace
from privhier.datasets.folder import Folder
from privhier.datasets.lfw import LFW
from privhier.datasets.listing import Source
from privhier.datasets.synthetic import Synthetic
from privhier.datasets.utkface import UTKFace
from privhier.registry import Registry

datasets: Registry[type[Source]] = Registry("datasets", key="dataset.name")
datasets.register("arrays")(Arrays)
datasets.register("att_faces")(AttFaces)
datasets.register("celeba")(CelebA)
datasets.register("fairface")(FairFace)
datasets.register("folder")(Folder)
datasets.register("lfw")(LFW)
datasets.register("synthetic")(Synthetic)
datasets.register("utkface")(UTKFace)
