"""How much of the noiseless network's advantage survives the noise, against the most that can.

    python experiments/guarantees/advantage.py runs/adv_0 runs/adv_1 runs/adv_2

Each run is trained with the reference ``open`` (same width, same data, no clip, no noise). The task's
normalized advantage is 2 * balanced accuracy - 1; eight fresh releases of every test record are scored.
Noise contracts: at most 2 Phi(mu / 2) - 1 of the noiseless advantage can be left.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import privhier as privhier  # before torch: it limits how long OpenMP's threads spin

# isort: split
import torch

from privhier.metrics.classification import balanced_accuracy
from privhier.models.features import edge_features
from privhier.privacy.accounting import gaussian_mu
from privhier.privacy.ceilings import contraction
from privhier.privacy.noise import SeededNoise
from privhier.session import reopen_session
from privhier.training.cloud import cloud_logits
from privhier.training.trained import load_trained

DRAWS = 8
CPU = torch.device("cpu")


def advantage(tail: torch.nn.Module, releases: np.ndarray, truth: np.ndarray) -> float:
    """2 * balanced accuracy - 1 of the tail on one release of each record."""
    predictions = cloud_logits(tail, releases, device=CPU)[0].argmax(1).numpy()
    return 2 * balanced_accuracy(predictions, truth, 2) - 1


def main(runs: list[Path]) -> None:
    """Print each run's figures and their mean."""
    shares, noised_all, clean_all = [], [], []
    for run in runs:
        session = reopen_session(run)
        data = session.prepared.data
        trained = load_trained(session.config, data, session.folder)
        mechanism = trained.mechanism
        other = session.reference("open")
        clean = load_trained(other.config, data, other.folder)
        test = data.splits.test
        truth = data.task[test, 0].numpy()
        z = edge_features(trained.edge, data.images, test, device=CPU)
        draws = [
            advantage(
                trained.tail,
                mechanism.sanitize(z, SeededNoise(session.config.seed, "advantage", k)).values.numpy(),
                truth,
            )
            for k in range(DRAWS)
        ]
        noiseless = advantage(clean.tail, np.asarray(clean.test_releases[:, 0]), truth)
        most = contraction(gaussian_mu(mechanism.sigma, mechanism.clip, 1))
        noised_all.append(np.mean(draws))
        clean_all.append(noiseless)
        shares.append(np.mean(draws) / (most * noiseless))
        print(
            f"{run.name}: noised {np.mean(draws):.4f} ({min(draws):.4f} to {max(draws):.4f}), "
            f"noiseless {noiseless:.4f}, contraction {most:.4f}, share {shares[-1]:.3f}"
        )
    whole = np.mean(noised_all) / (most * np.mean(clean_all))
    print(f"mean over {len(runs)} seeds: noised {np.mean(noised_all):.4f}, share {whole:.3f} (wanted 0.90)")


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])
