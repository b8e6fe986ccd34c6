"""A letter spelled out as a whole map gives no attacker more: the same attack on letters and on their maps.

    python experiments/letters/wide.py runs/demo male

The map is what the cloud's own tail makes of a letter at its input, thousands of values a record.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np

import privhier as ph

# isort: split
import torch

from privhier.assessment.single import score_attack
from privhier.attacks.view import FloatArray, View


def main(run: str, secret: str) -> None:
    """Print the AUC of the attackers on letters, and of one on their maps."""
    done = ph.open_run(run)
    letters = done.view()
    tail, alphabet = letters.tail, letters.alphabet
    assert tail is not None
    assert alphabet is not None

    def spelled(releases: FloatArray) -> FloatArray:
        chosen = torch.from_numpy(alphabet.letters_of(releases))
        with torch.no_grad():
            maps = [tail.expander(part) for part in chosen.flatten(0, 1).split(512)]
        whole = torch.cat(maps).flatten(1).numpy()
        return whole.reshape(*releases.shape[:2], -1)

    wide: View = replace(
        letters,
        threat_model="whole_maps",
        releases=spelled(letters.releases),
        alphabet=None,
        aux=replace(letters.aux, releases=lambda draw: spelled(letters.aux.releases(draw))),
    )
    print(f"{alphabet.letters} letters; a map of {wide.releases.shape[2]} values for each")
    print("different maps among the victims:", len(np.unique(wide.releases[:, 0], axis=0)))
    attack = ph.attacks.LogisticRegressionAttack(target=secret)
    for name, view in (("letters", letters), ("maps", wide)):
        print(name, score_attack(done._context, attack, view).auc)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
