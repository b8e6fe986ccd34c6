"""The built-in backbones: importing one registers it. A new backbone is one file and one line here."""

from privhier.models.mobile import efficientnet_b0 as efficientnet_b0
from privhier.models.mobile import mobilenet_v3_small as mobilenet_v3_small
from privhier.models.resnet import resnet18 as resnet18
from privhier.models.resnet import resnet50 as resnet50
from privhier.models.small_cnn import small_cnn as small_cnn
from privhier.models.vgg import vgg11 as vgg11
from privhier.models.vgg import vgg16 as vgg16
