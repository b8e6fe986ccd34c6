"""The cloud tail as an MLflow PyTorch model: exported by ``torch.export``, so loading it unpickles nothing.

The tail is deterministic; the edge is not (it noises), which an exported graph might freeze, so the
edge is kept as safetensors with the toolkit's own loader.
"""

from __future__ import annotations

import tempfile
import warnings
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from privhier.process.stopping import whole

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch
    from torch import nn


def log_model(
    client: Any,
    experiment: str,
    run_id: str,
    tail: nn.Module,
    example: npt.NDArray[np.float32] | torch.Tensor,
) -> str:
    """Log ``tail`` as an output of the run ``run_id``; no global state of MLflow is read or set.

    Args:
        client: An ``MlflowClient``.
        experiment: The experiment's id.
        run_id: The run it belongs to.
        tail: Maps float32 ``(B, *release_shape)`` to a list of ``(B, K)`` logits, or one tensor.
        example: float32 ``(B, *release_shape)``; stored with the model, so never a real release.

    Returns:
        The logged model's id; it loads from ``models:/<id>`` or ``runs:/<run_id>/tail``.
    """
    import copy

    with whole():
        import mlflow.pytorch
        import torch.export
    import numpy as np
    import torch
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    class SideBySide(torch.nn.Module):
        """One output tensor: MLflow's generic loader takes no lists."""

        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, releases: torch.Tensor) -> torch.Tensor:
            logits = self.inner(releases)
            return logits if isinstance(logits, torch.Tensor) else torch.cat(list(logits), dim=1)

    module = SideBySide(copy.deepcopy(tail)).cpu().eval()
    batch = np.ascontiguousarray(torch.as_tensor(example).cpu().numpy(), dtype=np.float32)
    if len(batch) == 1:  # torch.export would freeze a batch dimension of 1
        batch = np.concatenate([batch, batch])
    with torch.no_grad():
        width = module(torch.from_numpy(batch)).shape[1]
    float32 = np.dtype(np.float32)
    signature = ModelSignature(
        inputs=Schema([TensorSpec(float32, (-1, *batch.shape[1:]))]),
        outputs=Schema([TensorSpec(float32, (-1, width))]),
    )
    logged = client.create_logged_model(
        experiment, name="tail", source_run_id=run_id, model_type="cloud_tail"
    )
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            # torch.export and MLflow warn about each other's coming releases; nothing a user can mend
            warnings.simplefilter("ignore")
            mlflow.pytorch.save_model(
                module,
                f"{folder}/tail",
                mlflow_model=Model(
                    artifact_path=logged.artifact_location, run_id=run_id, model_id=logged.model_id
                ),
                signature=signature,
                input_example=batch,
                pip_requirements=[
                    f"{name}=={version(name).partition('+')[0]}" for name in ("torch", "numpy")
                ],
                serialization_format="pt2",
            )
            client.log_model_artifacts(logged.model_id, f"{folder}/tail")
    except BaseException:
        client.finalize_logged_model(logged.model_id, "FAILED")
        raise
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, 0)])
    return str(logged.model_id)
