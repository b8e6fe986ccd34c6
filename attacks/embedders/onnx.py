"""Any face embedder in ONNX form, run by onnxruntime on the CPU."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import torch
from pydantic import Field, field_validator

from privhier.attacks.embedders.base import FaceEmbedder, embedder_error, embedders, resized, weights_file
from privhier.attacks.view import FloatArray
from privhier.errors import ConfigError
from privhier.models.state_file import foreign

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

_NAME = "onnx"
Channels = Annotated[tuple[float, ...], Field(strict=False)]


@embedders.register(_NAME)
class OnnxEmbedder(FaceEmbedder):
    """An ONNX file with one picture input ``(b, 3, h, w)`` or ``(b, h, w, 3)`` and rows ``(b, E)`` first out.

    A pixel of value v in 0..255 enters as ``(v - mean) / scale``. The default is that of ArcFace
    networks (Deng et al. 2019). A file made for a fixed batch is fed such batches. onnxruntime uses
    as many threads as torch does (``runtime.threads`` in a run).

    Attributes:
        path: The file; required.
        size: Height and width of the input in pixels; 0 reads it from the file, which must fix it then.
        mean: One number for all channels or three, in 0..255, in the channel order of the input.
        scale: The same, above 0.
        order: Channel order the network was trained on.
    """

    size: int = Field(0, ge=0, le=1024)
    mean: Channels = (127.5,)
    scale: Channels = (127.5,)
    order: Literal["rgb", "bgr"] = "rgb"

    @field_validator("mean", "scale", mode="before")
    @classmethod
    def _one_for_all(cls, value: object) -> object:
        return (value,) if isinstance(value, int | float) else value

    @field_validator("mean", "scale")
    @classmethod
    def _one_or_three(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if len(value) not in (1, 3) or not np.isfinite(value).all():
            raise ValueError(f"one finite number or three (one a channel) are needed, got {list(value)}")
        return value

    @field_validator("scale")
    @classmethod
    def _above_zero(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if min(value) <= 0:
            raise ValueError("scale must be above 0: it divides")
        return value

    @cached_property
    def _network(self) -> _Network:
        return _Network(self)

    def prepare(self) -> None:
        """See ``FaceEmbedder``."""
        _ = self._network

    def _vectors(self, images: FloatArray) -> FloatArray:
        network = self._network
        pixels = resized(images, *network.size) * np.float32(255)
        ordered = pixels if self.order == "rgb" else pixels[:, ::-1]
        mean, scale = (np.asarray(v, dtype=np.float32).reshape(1, -1, 1, 1) for v in (self.mean, self.scale))
        return network((ordered - mean) / scale)


class _Network:
    """A loaded session and what its input looks like."""

    def __init__(self, options: OnnxEmbedder) -> None:
        import onnxruntime  # imported only where asked for: it takes a while, and memory

        self._path = options.path
        file = weights_file(options.path, _NAME)
        if why := foreign(file):
            raise self._error(f"is not an ONNX file that onnxruntime reads: {why}", "Get the file again")
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = torch.get_num_threads()
        settings.inter_op_num_threads = 1
        settings.use_deterministic_compute = True
        settings.log_severity_level = 3
        # Idle threads would spin beside torch's own.
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session: InferenceSession = onnxruntime.InferenceSession(
                str(file), settings, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's errors have no common base but Exception
            raise self._error(
                f"is not an ONNX file that onnxruntime reads: {str(error).splitlines()[0]}",
                "Give an undamaged .onnx file",
            ) from error
        inputs = self._session.get_inputs()
        shape = list(inputs[0].shape)
        if len(inputs) != 1 or len(shape) != 4 or 3 not in (shape[1], shape[3]):
            raise self._error(
                f"has inputs {[entry.shape for entry in inputs]}, not one (b, 3, h, w) or (b, h, w, 3)",
                "Export the embedder with one RGB picture as its only input",
            )
        if inputs[0].type != "tensor(float)":
            raise self._error(f"takes {inputs[0].type}, not float32", "Export it in float32")
        self._input = str(inputs[0].name)
        self._channels_last = shape[1] != 3
        self._batch = shape[0] if isinstance(shape[0], int) and shape[0] > 0 else None
        self.size = self._input_size(shape[1:3] if self._channels_last else shape[2:], options.size)

    def _input_size(self, stated: list[object], wanted: int) -> tuple[int, int]:
        sides = [side if isinstance(side, int) and side > 0 else None for side in stated]
        if wanted and any(side not in (None, wanted) for side in sides):
            raise embedder_error(
                _NAME, "size", wanted, f"does not fit the file, whose input is {sides}", "Leave it out"
            )
        if not wanted and None in sides:
            raise embedder_error(
                _NAME, "size", wanted, "is needed: the file leaves it open", "Give it in pixels, e.g. 112"
            )
        height, width = (wanted or side or 0 for side in sides)
        return height, width

    def __call__(self, x_bchw: FloatArray) -> FloatArray:
        x = x_bchw.transpose(0, 2, 3, 1) if self._channels_last else x_bchw
        step = self._batch or len(x)
        rows = [self._run(x[start : start + step], step) for start in range(0, len(x), step)]
        return np.concatenate(rows)

    def _run(self, x: FloatArray, step: int) -> FloatArray:
        padded = np.concatenate([x, np.repeat(x[-1:], step - len(x), axis=0)]) if len(x) < step else x
        out = np.asarray(self._session.run(None, {self._input: np.ascontiguousarray(padded)})[0])
        if out.ndim != 2 or len(out) != len(padded) or not np.isfinite(out).all():
            raise self._error(
                f"gives {out.shape} for {len(padded)} pictures, not finite rows (batch, E)",
                "Export the embedding itself as the first output",
            )
        return np.asarray(out[: len(x)], dtype=np.float32)

    def _error(self, rule: str, remedy: str) -> ConfigError:
        return embedder_error(_NAME, "path", self._path, rule, remedy)
