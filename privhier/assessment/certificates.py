"""What no attacker can read from a run's letters, certified on its test victims; and the alarm."""

from __future__ import annotations

import numpy as np

from privhier.assessment.context import Context
from privhier.assessment.floors import victim_cells
from privhier.assessment.views import edge_states
from privhier.datasets.base import FloatArray, IntArray
from privhier.evaluation.leakage_parts import Certified
from privhier.evaluation.scores import Sample
from privhier.metrics.bounds import mean_auc_lower_bound, recall_lower_bound
from privhier.models.features import edge_features
from privhier.privacy.certificates import certify, check_certificate
from privhier.privacy.identity_certificates import certify_verification, top1_bound
from privhier.seeding import numpy_stream


def certificates(context: Context) -> dict[str, Certified]:
    """The certificate of every sensitive attribute; empty where releases are no letters.

    They bind whoever holds a record's letters, all releases of it together, and nothing else of that record.
    K, code, channel and people are those of the run, fixed before anybody looked. The bounds of all
    attributes hold together with ``evaluation.confidence``. Of known people, on whose other photos the code
    was fitted, only the bound on naming one of them is stated: it needs no confidence.
    """
    mechanism, names = context.trained.mechanism, context.config.dataset.sensitive
    if not mechanism.letters:
        return {}
    letters = victims_letters(context)
    channel = None if mechanism.channel is None else mechanism.channel.matrix.numpy()
    confidence, shares = context.config.evaluation.confidence, 2 * len(names)
    known = context.config.dataset.identity_protocol == "known_people"
    test, dataset = context.victims.test, context.prepared.dataset
    found = {}
    for name in names:
        labels = context.prepared.labels[name]
        if name == "identity":
            matched = None if known else victim_cells(context)[: len(test)]
            made = _identity(
                letters, labels.values[test], matched, context.config.seed, mechanism.letters, channel,
                confidence, shares,
            )  # fmt: skip
            found[name] = made
            continue
        if known:
            continue
        bound = certify(
            letters,
            labels.values[test],
            dataset.group[test],
            n_letters=mechanism.letters,
            n_classes=len(labels.classes),
            channel=channel,
            confidence=confidence,
            shares=shares,
        )
        if bound.reason:
            context.notes.append(f"no certificate of {name}: {bound.reason}")
            continue
        found[name] = Certified(
            balanced_accuracy=bound.balanced_accuracy,
            auc=bound.auc,
            confidence=confidence,
            n=bound.n,
            people=bound.people,
        )
    return found


def victims_letters(context: Context) -> IntArray:
    """The test victims' true letters at every release, int64 ``(n, T * M)``."""
    images, test = context.prepared.data.images, context.victims.test
    spelt = []
    for edge in edge_states(context):
        assert edge.codebook is not None
        z = edge_features(edge, images, test, device=context.device)
        spelt.append(edge.codebook.letters_of(z).numpy())
    return np.concatenate(spelt, axis=1)


def check_certified(
    context: Context,
    what: str,
    certified: Certified | None,
    sample: Sample,
    probabilities: FloatArray,
    predictions: IntArray,
) -> None:
    """Fail the run if an attacker's score on the certified victims is above what any attacker's can be.

    Raises:
        GuaranteeError: The one-sided 99.99 % lower bound, over all the run's checks, lies above it.
    """
    if certified is None or certified.auc is None:
        return
    n_checks = context.n_checks
    recall = recall_lower_bound(predictions, sample.truth, sample.n_classes, n_checks=n_checks)
    check_certificate(f"balanced accuracy of {what}", recall, certified.balanced_accuracy)
    area = mean_auc_lower_bound(probabilities, sample.truth, n_checks=n_checks)
    check_certificate(f"AUC of {what}", area, certified.auc)


def _identity(
    letters: IntArray,
    identity: IntArray,
    matched: IntArray | None,
    seed: int,
    n_letters: int,
    channel: FloatArray | None,
    confidence: float,
    shares: int,
) -> Certified:
    people = len(np.unique(identity))
    name = top1_bound(people, n_letters, letters_per_record=letters.shape[1], channel=channel)
    if matched is None:
        return Certified(top1=name, confidence=confidence, n=len(identity), people=people)
    pairs = certify_verification(
        letters,
        identity,
        numpy_stream(seed, "certificate", "pairs"),
        n_letters=n_letters,
        matched=matched,
        channel=channel,
        confidence=confidence,
        shares=shares,
    )
    return Certified(
        verification_auc=pairs.auc,
        balanced_accuracy=pairs.balanced_accuracy,
        top1=name,
        confidence=confidence,
        n=pairs.n,
        people=people,
    )
