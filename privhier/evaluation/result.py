"""The schema of ``result.json``: versioned, documented, validated on write and on read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import ConfigDict, Field, ValidationError

from privhier.errors import ResultError
from privhier.evaluation.additions import Addition
from privhier.evaluation.leakage_parts import Certified, Excess, Headline, LabelCounts
from privhier.evaluation.score import Part
from privhier.evaluation.score import Score as Score
from privhier.storage.sealed import Sealed

SCHEMA: Final = "privhier.result/1"


class Ceilings(Part):
    """The most anyone can reach from the releases this score used."""

    releases: int
    auc: float | None
    """Of every one-vs-rest AUC, hence of their macro mean as well."""
    balanced_accuracy: float


class TaskScores(Part):
    """How well one place (cloud, edge exit) does one task."""

    auc: Score
    balanced_accuracy: Score


class TaskUtility(Part):
    """One task attribute."""

    classes: list[str]
    cloud: TaskScores
    edge_exit: TaskScores
    majority: float
    """Share of the largest class among the scored records."""
    ceiling: Ceilings | None = None
    cloud_gain: Score | None = None
    """AUC of the cloud minus that of the edge exit; null in results written before it existed."""


class UtilityMean(Part):
    """Mean over the task attributes of the cloud's scores."""

    auc: Score
    balanced_accuracy: Score
    cloud_gain: Score | None = None
    """Mean over the tasks of ``TaskUtility.cloud_gain``."""


class AttackScores(Part):
    """One attacker on one attribute (or identity), scored on test and on training records."""

    attack: str
    """Registered name; ``@`` and the threat model follow unless it is the curious cloud."""
    repr: str
    threat_model: str = "curious_cloud"
    auc: Score | None = None
    balanced_accuracy: Score | None = None
    top1: Score | None = None
    verification_auc: Score | None = None
    """Impostor pairs drawn at random: what the task labels give away is in it."""
    matched_verification_auc: Score | None = None
    """Impostor pairs that agree in the task labels as the pairs of one person do."""
    training_records: dict[str, Score] = Field(default_factory=dict)
    """The same scores on training records, by name."""
    validation: float | None = None
    selected: dict[str, Any] = Field(default_factory=dict)
    queries: int = 0
    """Releases of auxiliary records it used; its wall time is in the result's ``timing``."""


class WorstAttack(Part):
    """The best attacker; its interval is bootstrapped over the maximum of all attackers."""

    attack: str
    auc: Score | None = None
    balanced_accuracy: Score | None = None
    top1: Score | None = None
    verification_auc: Score | None = None
    matched_verification_auc: Score | None = None
    training_records: dict[str, Score] = Field(default_factory=dict)


class AuxiliaryPoint(Part):
    """The worst attack of an attacker who owns fewer auxiliary records."""

    auxiliary: int
    draws: int
    worst: WorstAttack


class ThreatModelRow(Part):
    """What the attackers of one threat model held."""

    name: str
    holds: str
    releases: int
    """Of each victim."""
    auxiliary: int
    """Labelled images of their own."""
    draws: int
    """Fresh releases of each of those; a white box makes more."""
    same_as: str | None = None
    """Not run: it would repeat the numbers of this one."""


class PopulationShares(Part):
    """One set of training records whose make-up was estimated."""

    n: int
    truth: list[float]
    estimate: list[float]


class PropertyInference(Part):
    """Shares of the classes of one attribute among training records, from their releases alone."""

    attack: str
    repr: str
    classes: list[str]
    error: Score
    """Mean absolute error of a class's share, over populations; n counts populations."""
    auxiliary_error: float
    """The same error of answering with the auxiliary set's shares: what knowing nothing reaches."""
    populations: list[PopulationShares]
    selected: dict[str, Any] = Field(default_factory=dict)


class AttributeLeakage(Part):
    """One sensitive attribute."""

    classes: list[str]
    """Names of the classes, by number."""
    worst: WorstAttack
    """The best attacker who reads no task labels."""
    attacks: list[AttackScores]
    """Every such attacker."""
    refused: dict[str, str] = Field(default_factory=dict)
    """Attackers that do not apply, with the reason."""
    majority: float
    """Share of the largest class among the scored records."""
    raw_image_attack: WorstAttack | None = None
    """The same attackers on the images themselves."""
    ceiling: Ceilings | None = None
    """What no attacker on these releases exceeds if the guarantee is true."""
    attacks_with_labels: list[AttackScores] = Field(default_factory=list)
    """Attackers who also read the victims' task labels."""
    worst_with_labels: WorstAttack | None = None
    """The best of those; no ceiling binds it."""
    by_auxiliary: list[AuxiliaryPoint] = Field(default_factory=list)
    """Leakage of test records against the size of the auxiliary set, smallest first, the whole one last."""
    headline: Headline | None = None
    """What the attribute is judged by. Null here and below in results written before it existed."""
    floor: WorstAttack | None = None
    """Attackers of the same kinds who are given the victim's true task labels and nothing else."""
    answers: WorstAttack | None = None
    """The same, given what the cloud itself predicts from the victim's last release."""
    excess: Excess | None = None
    """worst - floor."""
    certified: Certified | None = None
    """An upper bound on any attacker; null where the releases are no letters."""
    label_counts: LabelCounts | None = None
    """Null where the table would be large."""


class Reconstruction(Part):
    """One reconstruction attack; scores that do not apply are null."""

    ssim: Score | None = None
    ms_ssim: Score | None = None
    """Multi-scale SSIM; null below 22 pixels. Fewer than five scales below 176 pixels."""
    psnr: Score | None = None
    lpips: Score | None = None
    """Learned perceptual distance, lower is more alike; null without AlexNet's weights."""
    reid_rank1: Score | None = None
    """How often a face embedder finds the victim in a gallery of other photos, from the reconstruction."""
    reid_gallery: int | None = None
    """People in that gallery, one photo each; chance is one over this."""
    verification_tar: Score | None = None
    """True accept rate at a false accept rate of 1 %, reconstructions against the gallery's photos."""
    original_reid_rank1: Score | None = None
    """The same rank-1 from the attacked photos themselves: what a perfect reconstruction would reach."""
    original_verification_tar: Score | None = None
    mean_image_ssim: Score | None = None
    """SSIM of answering with the auxiliary set's mean image: what knowing nothing reaches."""


class GuaranteeRow(Part):
    """One (epsilon, delta) statement; ``epsilon`` null: none."""

    name: str
    """What is claimed."""
    adversary: str
    """Against whom."""
    adjacency: str
    """Which two inputs it compares, in words."""
    unit: str
    """Whose: a record or a person."""
    epsilon: float | None
    """Rounded up; null: none is claimed."""
    delta: float | None
    """0: a pure epsilon."""
    covers: list[str]
    """What the claim is about."""
    does_not_cover: list[str]
    """What it says nothing of."""
    note: str = ""
    """A remark; empty: none."""
    allows: float | None = Field(None, ge=0.5, le=1)
    """Best balanced accuracy at telling the two inputs apart, rounded up; null without an epsilon, and in
    results written before it existed."""
    measure: Literal["epsilon", "maximal_leakage"] = "epsilon"
    """What the row's number is."""
    nats: float | None = Field(None, ge=0)
    """Of a row of maximal leakage: L; P(guess) is at most e^L times the best blind guess. Null: no bound."""


class UplinkTotals(Part):
    """What went up."""

    bytes_per_record: float
    """Of one release of one record: its share of the messages as they went up."""
    payload_bytes_per_record: float | None = Field(None, gt=0)
    """Of the release in it: its values, or its letters at ``ceil(log2 K)`` bits each. The rest is record
    number, labels, and its share of the header. Null in results written before it existed."""
    releases_per_record: int
    total_bytes: int


class GroupScores(Part):
    """One class of a sensitive attribute: how well it is served and how exposed it is."""

    n: int = Field(ge=0)
    """Test records of this class."""
    task_accuracy: dict[str, Score] = Field(default_factory=dict)
    """Balanced accuracy of the cloud within the class, by task: mean recall over the task classes there."""
    attack_recall: Score | None = None
    """Share of the class's victims in whom the worst attacker recognizes it."""


class ReferenceRun(Part):
    """An unprotected network trained and attacked beside, on the same splits."""

    description: str
    release_shape: list[int]
    utility: dict[str, TaskUtility]
    utility_mean: UtilityMean
    leakage: dict[str, AttributeLeakage]
    reconstruction: dict[str, Reconstruction]
    by_group: dict[str, dict[str, GroupScores]] = Field(default_factory=dict)


class MembershipScores(Part):
    """One membership attack through one part of the network; chance is a TPR equal to the FPR.

    A TPR is null where there are too few non-members to see so low an FPR (1/n of n non-members).
    """

    repr: str
    auc: Score
    tpr_at_fpr_001: Score | None
    """True-positive rate at a false-positive rate of 0.1 %."""
    tpr_at_fpr_01: Score | None
    """True-positive rate at a false-positive rate of 1 %."""
    roc: list[tuple[float, float]]
    """(FPR, TPR), the FPR evenly spaced on a logarithmic scale."""
    shadows: int = Field(ge=1)
    selected: dict[str, Any] = Field(default_factory=dict)
    queries: int = 0
    """Predictions asked of the target and of the shadow models."""


class Membership(Part):
    """Who can tell training records from others."""

    parts: dict[str, dict[str, MembershipScores]]
    """By what the attacker holds (``edge_weights``, ``task_exit``, ``tail``), then by attack."""
    refused: dict[str, str] = Field(default_factory=dict)
    """Attacks that do not apply, with the reason."""
    n_members: int = Field(ge=1)
    n_nonmembers: int = Field(ge=1)
    shadows: int = Field(ge=1)
    """Most shadow models any of the attacks used."""
    shadow_records: int = Field(ge=1)
    """Training records of one shadow model."""
    seconds: dict[str, float] = Field(default_factory=dict)
    """Wall time by attack, the shadow models it uses included, whoever trained them."""


class Result(Part):
    """Everything a run claims."""

    schema_: Literal["privhier.result/1"] = Field(SCHEMA, alias="schema")
    """Name and version of this format."""
    name: str
    """Of the run."""
    config_hash: str
    """SHA-256 of the configuration, without what changes no number."""
    git: dict[str, Any]
    """Commit of the code, and whether it was altered."""
    seed: int
    """Of the run."""
    dataset: dict[str, Any]
    """name, fingerprint, n, problems, identity_protocol, split sizes, groups."""
    release: dict[str, Any]
    """mechanism, clip, sigma, shape, values, releases_per_record, noise_source, quantize."""
    utility: dict[str, TaskUtility]
    """By task attribute."""
    utility_mean: UtilityMean
    """Over the tasks."""
    leakage: dict[str, AttributeLeakage]
    """By sensitive attribute."""
    reconstruction: dict[str, Reconstruction]
    """By attack."""
    references: dict[str, ReferenceRun] = Field(default_factory=dict)
    """Unprotected networks, by name."""
    by_group: dict[str, dict[str, GroupScores]] = Field(default_factory=dict)
    """Sensitive attribute (not identity) to class: who pays. Empty in results written before it existed."""
    threat_models: list[ThreatModelRow] = Field(default_factory=list)
    """What the attackers of each held."""
    property_inference: dict[str, list[PropertyInference]] = Field(default_factory=dict)
    """By sensitive attribute: what the releases of training records say of the whole training set."""
    label_inference: dict[str, AttributeLeakage] = Field(default_factory=dict)
    """By task, where labels are randomized: true labels of training records from releases and answers."""
    membership: Membership | None = None
    """Null where no membership attack was asked for, and in results written before there were any."""
    additions: list[Addition] = Field(default_factory=list)
    """Attacks that were run once the run was finished, oldest first; their scores stand among the others."""
    guarantees: list[GuaranteeRow]
    """All statements, and what they do not cover."""
    uplink: UplinkTotals
    """What went up."""
    warnings: list[str] = Field(default_factory=list)
    """In words."""
    timing: dict[str, float]
    """Seconds, by phase and attack."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    def write(self, path: Path) -> None:
        """Validate once more and write atomically (temporary file, flush, rename)."""
        text = json.dumps(self.model_dump(mode="json", by_alias=True), indent=2, allow_nan=False) + "\n"
        Result.model_validate_json(text)
        Sealed(path.parent).write(path, text)

    @classmethod
    def read(cls, path: Path) -> Result:
        """Read and validate a result that stands for itself; raises ``ResultError``."""
        try:
            return cls._parsed(path, path.read_bytes())
        except OSError as error:
            raise ResultError(
                key=path.name,
                value=str(path),
                rule=f"cannot be read: {error.strerror or error}",
                remedy="Run `privhier run CONFIG` to its end first",
            ) from error

    @classmethod
    def of_run(cls, sealed: Sealed, path: Path) -> Result:
        """The result of a run folder, as it was written there.

        Raises:
            CheckpointError: It was edited or damaged since.
            ResultError: There is none, or it does not fit the schema.
        """
        if sealed.knows(path):
            return cls._parsed(path, sealed.read(path))
        return cls.read(path)

    @classmethod
    def _parsed(cls, path: Path, data: bytes) -> Result:
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            raise ResultError(
                key=path.name,
                value=str(path),
                rule=f"is not a readable {SCHEMA} file: {error}",
                remedy="Run `privhier run CONFIG` to its end first",
            ) from error
