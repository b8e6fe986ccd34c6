"""The built-in face embedders: importing one registers it (and loads no runtime). A new one adds its line."""

from privhier.attacks.embedders.facenet import InceptionResnetV1Embedder as InceptionResnetV1Embedder
from privhier.attacks.embedders.onnx import OnnxEmbedder as OnnxEmbedder
