r"""Certificates: at a stated confidence, the most that *any* attacker reads from letters.

A certificate binds whoever holds one record's letters of one fixed code and nothing else of that record. It
is computed once, on people whom neither code nor channel nor attacker has met, and K, code, channel and
people are fixed before looking. An attacker is any function of the letters, of any power; it may know the
code, the channel, the true frequencies and every other person's data. Of a training record it says nothing:
the code may depend on it.

Derivation. Legend: S classes, K letters, :math:`m_{rk}` images of person r in class k,
:math:`n_k = \sum_r m_{rk}`. Labels and numbers of images are held fixed; people are independent (they need
not be alike), the images of one person may hang together in any way. :math:`\hat p_k` are the letters'
shares among the records of class k, :math:`p_k = E\,\hat p_k` what they would be in expectation; W is the
public channel (the identity without one). An attacker a has expected balanced accuracy :math:`L_a(pW)`, a
linear function, so the most is :math:`F(p) = \max_a L_a(pW) = \frac1S \sum_c \max_k (p_k W)(c)`.

1. *The plug-in errs upward.* :math:`E\,F(\hat p) = E \max_a L_a \ge \max_a E\,L_a = F(p)` (Jensen). The
   maximum over attackers is thereby paid for: no number of letters or of attackers enters what follows.
2. *One person moves it little.* Another person r in r's place moves mass at most :math:`m_{rk} / n_k` of
   :math:`\hat p_k` from some letters to others. Behind the channel this is that mass times a difference of
   two mixtures of W's rows, whose positive part is at most :math:`\eta` (``channel_contraction``; 1 without
   a channel). Since :math:`\sum_c \max_k` rises by no more than the positive parts, F changes by at most
   :math:`d_r = \frac{\eta}{S} \sum_k m_{rk} / n_k`.
3. McDiarmid (1989): :math:`P(F(p) > F(\hat p) + t) \le P(F(\hat p) < E\,F(\hat p) - t) \le
   \exp(-2 t^2 / \sum_r d_r^2)`, hence the slack :math:`\sqrt{\ln(1/\delta) / 2 \cdot \sum_r d_r^2}`. With
   one image a person it is :math:`\sqrt{\ln(1/\delta)/2 \cdot S^{-2} \sum_k 1/n_k}`; where all images of a
   person are of one class :math:`1/n_k` becomes :math:`\sum_r (m_r / n_k)^2`.

AUC. A score s has :math:`A_s(p_1, p_0)`, linear in either argument with kernel in {0, 1/2, 1}; the most is
:math:`G = \frac12 + \frac14 \sum_{ij} |p_{1i} p_{0j} - p_{1j} p_{0i}|` (``metrics.optimal``). Moving mass
of one argument changes every :math:`A_s`, hence their maximum, by at most that mass times :math:`\eta`, so
:math:`d_r = \eta (m_{r1}/n_1 + m_{r0}/n_0)`; that is the best constant (a test reaches it). With one image
a person :math:`\sum d_r^2 = 1/n_0 + 1/n_1`. Step 1 needs
:math:`E\,A_s(\hat p_1, \hat p_0) = A_s(p_1, p_0)`, which holds where nobody is in both classes. A person
with images in both compares with themselves in a share :math:`w = \sum_r m_{r1} m_{r0} / (n_1 n_0)` of the
pairs, and only these pairs can differ, by at most :math:`\min(1, 2 \eta)` each: that much is added. With more
than two classes it is the macro mean of every class against the rest of these records; the terms are the
means over the classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from privhier.errors import ConfigError, DataError, GuaranteeError
from privhier.metrics.optimal import best_balanced_accuracy, best_macro_auc
from privhier.privacy.channel_bounds import channel_contraction, checked_channel, joint_letters, mixed
from privhier.privacy.shown import claim

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]

JOINT_ALPHABET = 65_536
"""Letters of the joint alphabet up to which a certificate is computed."""


@dataclass(frozen=True)
class Certificate:
    """Upper bounds on any attacker's expected scores; every bound by itself holds with ``confidence``.

    Attributes:
        balanced_accuracy: Of the mean recall over all classes, in [1/S, 1]; None: no certificate.
        auc: Of the (macro one-vs-rest) AUC, in [1/2, 1]; None: no certificate.
        confidence: One-sided, of all ``shares`` statements together.
        n: Records it was computed on.
        people: Independent people (groups) among them.
        letters: Letters of the joint alphabet of one record, before the channel.
        reason: Why there is no certificate; "" where there is one.
    """

    balanced_accuracy: float | None
    auc: float | None
    confidence: float
    n: int
    people: int
    letters: int
    reason: str = ""


@dataclass(frozen=True)
class Shares:
    """How the records are shared out over people and classes, and the slack that follows.

    Attributes:
        images: int64 ``(R, S)``, images of every person in every class; every class has one.
    """

    images: npt.NDArray[np.int64]

    @classmethod
    def of(cls, labels: Array, people: Array, n_classes: int) -> Shares:
        """Count labels ``(n,)`` in 0..S-1 by people ``(n,)``, any integers."""
        unique, member = np.unique(people, return_inverse=True)
        flat = np.bincount(member * n_classes + labels, minlength=len(unique) * n_classes)
        return cls(flat.reshape(len(unique), n_classes))

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """``(S,)`` records of each class."""
        return np.asarray(self.images.sum(axis=0))

    def recall_slack(self, delta: float, contraction: float = 1.0) -> float:
        """What balanced accuracy may lie above its plug-in with probability ``delta``."""
        moves = (self.images / self.counts).mean(axis=1)
        return contraction * _mcdiarmid(moves, delta)

    def auc_slack(self, delta: float, contraction: float = 1.0) -> float:
        """What the macro AUC may lie above its plug-in with probability ``delta``."""
        inside = self.images / self.counts
        rest = self.images.sum(axis=1, keepdims=True) - self.images
        outside = rest / (self.counts.sum() - self.counts)
        alone = float((inside * outside).sum(axis=0).mean()) * min(1.0, 2 * contraction)
        return contraction * _mcdiarmid((inside + outside).mean(axis=1), delta) + alone


def certify(
    letters: Array,
    labels: Array,
    people: Array,
    *,
    n_letters: int,
    n_classes: int,
    channel: Array | None = None,
    confidence: float = 0.95,
    shares: int = 1,
) -> Certificate:
    """The most that anyone who holds a record's letters can read of its class; see the module.

    Args:
        letters: integers ``(n,)``, or ``(n, M)`` for M letters a record, in [0, K): the code's, before the
            channel. A letter that is answered M times is M equal columns. (Answers drawn through the
            channel do as well, without ``channel``: a wider bound.)
        labels: integers ``(n,)`` in [0, S).
        people: integers ``(n,)``: who of these are independent.
        n_letters: K, at least 1.
        n_classes: S, at least 2.
        channel: ``(K, Y)`` probabilities, the same for every letter and drawn anew for each; None: none.
        confidence: In (0, 1), of all statements together.
        shares: Statements among which ``1 - confidence`` is shared out equally, for instance the attributes
            (twice as many, if an attribute's AUC and balanced accuracy must hold together).

    Raises:
        ConfigError: An argument is out of its range.
        DataError: Letters, labels or people are not as described.
    """
    if n_letters < 1 or n_classes < 2:
        raise _config("n_letters, n_classes", (n_letters, n_classes), "must be at least 1 and 2")
    if not 0 < confidence < 1 or shares < 1:
        raise _config("confidence, shares", (confidence, shares), "must lie in (0, 1), and be at least 1")
    letters, labels, people = checked_records(letters, labels, people, n_letters, n_classes)
    matrix = None if channel is None else checked_channel(channel, n_letters)
    per_record = letters.shape[1]
    share, alphabet = Shares.of(labels, people, n_classes), n_letters**per_record
    missing = np.flatnonzero(share.counts == 0)
    reason = ""
    if len(missing):
        reason = f"class {int(missing[0])} has no record among these people"
    elif max(alphabet, 0 if matrix is None else matrix.shape[1] ** per_record) > JOINT_ALPHABET:
        reason = f"{n_letters}^{per_record} joint letters are more than {JOINT_ALPHABET}"
    if reason:
        return Certificate(None, None, confidence, len(labels), len(share.images), alphabet, reason)
    flat = np.bincount(labels * alphabet + joint_letters(letters, n_letters), minlength=n_classes * alphabet)
    frequencies = flat.reshape(n_classes, alphabet) / share.counts[:, None]
    recall, area = bounds(
        frequencies, share, (1 - confidence) / shares, channel=matrix, letters_per_record=per_record
    )
    return Certificate(float(recall), float(area), confidence, len(labels), len(share.images), alphabet)


def bounds(
    frequencies: Array,
    shares: Shares,
    delta: float,
    *,
    channel: FloatArray | None = None,
    letters_per_record: int = 1,
) -> tuple[FloatArray, FloatArray]:
    """Upper bounds on balanced accuracy and AUC, each at ``1 - delta``, from letter frequencies.

    Args:
        frequencies: ``(..., S, K**M)``, the letters' shares within each class, before the channel.
        shares: Of the same records.
        delta: In (0, 1).
        channel: ``checked_channel``, or None.
        letters_per_record: M.

    Returns:
        Two ``(...)``, at most 1.
    """
    if channel is not None:
        frequencies = mixed(frequencies, channel, letters_per_record)
    eta = channel_contraction(channel, letters_per_record)
    recall = best_balanced_accuracy(frequencies) + shares.recall_slack(delta, eta)
    area = best_macro_auc(frequencies, shares.counts) + shares.auc_slack(delta, eta)
    return np.minimum(recall, 1.0), np.minimum(area, 1.0)


def check_certificate(name: str, lower_bound_9999: float, certified: float | None) -> None:
    """Raise if an attacker's one-sided 99.99 % lower bound lies above what was certified of any attacker.

    Both must be of the same records. Given these, no attacker on their letters has an expected score above
    the plug-in behind the channel, and that lies below the certificate; what is left to chance is the
    channel's noise, for which the lower bound answers. So a false alarm is as rare as that bound says,
    whatever the certificate's confidence, and without a channel there is none.

    Args:
        name: What was scored, for the message.
        lower_bound_9999: ``metrics.bounds.recall_lower_bound`` for balanced accuracy,
            ``mean_auc_lower_bound`` for AUC; count the run's checks in ``n_checks`` there.
        certified: The certificate's number; None (there is none) passes.

    Raises:
        GuaranteeError: The attacker saw more than the letters, or the certificate is wrong.
    """
    # A sliver for rounding; nan on either side is an alarm, not a pass.
    if certified is not None and not lower_bound_9999 <= certified + 1e-12:
        raise GuaranteeError(
            key=name,
            value=lower_bound_9999,
            rule=f"the 99.99 % lower bound must not lie above what is certified of any attacker, "
            f"{claim(certified, 6)}",
            remedy="The certificate is wrong, or the attacker saw more than one record's letters: check the "
            "code, the channel, the number of letters certified, and the view",
        )


def checked_records(
    letters: Array, labels: Array, people: Array, n_letters: int, n_classes: int
) -> tuple[Array, Array, Array]:
    """Letters as int64 ``(n, M)``, labels and people as int64 ``(n,)``; anything else is a ``DataError``."""
    arrays = []
    for name, given, most in (
        ("letters", letters, n_letters),
        ("labels", labels, n_classes),
        ("people", people, 0),
    ):
        array = np.asarray(given)
        if not np.issubdtype(array.dtype, np.integer) or array.ndim not in (
            (1, 2) if name == "letters" else (1,)
        ):
            raise _data(name, f"{array.dtype} {array.shape}", "must be integers, one row a record")
        if most and array.size and not 0 <= int(array.min()) <= int(array.max()) < most:
            wrong = int(array.min()) if array.min() < 0 else int(array.max())
            raise _data(name, wrong, f"must lie in [0, {most})")
        arrays.append(array.astype(np.int64))
    sizes = [len(array) for array in arrays]
    if len(set(sizes)) != 1 or sizes[0] == 0 or arrays[0].size == 0:
        raise _data("letters", sizes, "must be as many as labels and people, and at least one")
    return arrays[0].reshape(sizes[0], -1), arrays[1], arrays[2]


def _mcdiarmid(moves: Array, delta: float) -> float:
    return math.sqrt(math.log(1 / delta) / 2 * float((np.asarray(moves) ** 2).sum()))


def _config(field: str, value: object, rule: str) -> ConfigError:
    return ConfigError(key=f"certificate.{field}", value=value, rule=rule, remedy="Mend the arguments")


def _data(field: str, value: object, rule: str) -> DataError:
    return DataError(key=f"certificate.{field}", value=value, rule=rule, remedy="Mend the records")
