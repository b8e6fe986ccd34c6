"""Certificates for both ends of the line, made by a test authority of their own."""

from __future__ import annotations

import ipaddress
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from privhier.errors import ConfigError, OutputError

AUTHORITY, CERTIFICATE, KEY = "authority.pem", "cert.pem", "key.pem"
_EDGE_NAME = re.compile(r"edge-(0|[1-9][0-9]{0,4})\.privhier")
_CLOCKS_APART = timedelta(minutes=5)
_LONGEST_DAYS = 3650
_MOST_EDGES = 65536


@dataclass(frozen=True)
class Certificates:
    """What ``make_certificates`` wrote.

    Attributes:
        folder: All of it.
        authority: The authority's own folder with its key: never to be handed over.
        cloud: The folder for whoever runs the cloud.
        edges: One folder for each edge.
        until: When they expire, UTC.
    """

    folder: Path
    authority: Path
    cloud: Path
    edges: tuple[Path, ...]
    until: datetime


def make_certificates(
    folder: Path, *, hosts: Sequence[str], edges: int = 1, days: int = 30, now: datetime | None = None
) -> Certificates:
    """Make a test authority and certificates for one cloud and its edges: P-256 keys, SHA-256 signatures.

    ``folder`` holds ``authority.pem``, ``authority/key.pem``, and ``cloud``, ``edge``, ``edge-1``, ...,
    each with ``cert.pem``, ``key.pem`` and ``authority.pem``: all that its machine needs. Only the owner
    can read it (keys 0600, folders 0700). The certificate of edge N names it as ``edge-N.privhier`` (a DNS
    name), and the cloud lets it greet as that edge only, in every run it serves. Keys are not encrypted,
    and nothing can be revoked: it is an authority for tests and small studies.

    Args:
        folder: Made, or empty.
        hosts: Names and addresses by which edges call the cloud.
        edges: How many edge certificates.
        days: How long all of them are valid, 1 to 3650.
        now: Start of validity, with a time zone; default: the clock, and five minutes' leeway.

    Raises:
        OutputError: ``folder`` is not empty, or cannot be written.
        ConfigError: No host, a host that is none, or a number out of range.
    """
    names = _names(hosts)
    for key, value, most in (("--days", days, _LONGEST_DAYS), ("--edges", edges, _MOST_EDGES)):
        if not 1 <= value <= most:
            raise ConfigError(
                key=key, value=value, rule=f"must lie from 1 to {most}", remedy="Choose another number"
            )
    target = folder.resolve()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise OutputError(
            key="DIR",
            value=str(folder),
            rule="must be a new or an empty folder: certificates are never overwritten",
            remedy="Give another folder, or remove this one",
        )
    start = now or datetime.now(UTC)
    authority = _Authority(start - _CLOCKS_APART, start + timedelta(days=days))
    owners = ["edge", *(f"edge-{number}" for number in range(1, edges))]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        try:
            _write(draft / AUTHORITY, authority.pem)
            (draft / "authority").mkdir(mode=0o700)
            _write(draft / "authority" / KEY, _key_pem(authority.key))
            authority.issue(draft / "cloud", ExtendedKeyUsageOID.SERVER_AUTH, names)
            for number, owner in enumerate(owners):
                name = x509.DNSName(f"edge-{number}.privhier")
                authority.issue(draft / owner, ExtendedKeyUsageOID.CLIENT_AUTH, [name])
            draft.replace(target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        raise OutputError(
            key="DIR", value=str(folder), rule=f"cannot be written: {error}", remedy="Give another folder"
        ) from error
    return Certificates(
        folder=folder,
        authority=folder / "authority",
        cloud=folder / "cloud",
        edges=tuple(folder / owner for owner in owners),
        until=authority.until,
    )


def edges_named(pem: bytes) -> frozenset[int]:
    """The edges that a certificate in PEM is made for: every N of a DNS name ``edge-N.privhier``."""
    try:
        extensions = x509.load_pem_x509_certificate(pem).extensions
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
        return frozenset()
    found = (_EDGE_NAME.fullmatch(name) for name in names.get_values_for_type(x509.DNSName))
    return frozenset(int(match[1]) for match in found if match)


class _Authority:
    """A test authority in memory: its key, its certificate, and what it issues."""

    def __init__(self, since: datetime, until: datetime) -> None:
        self.since, self.until, self.key = since, until, ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "privhier test authority")])
        builder = self._builder(self.name, self.key)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
        self.certificate = builder.sign(self.key, hashes.SHA256())
        self.pem = self.certificate.public_bytes(serialization.Encoding.PEM)

    def issue(self, folder: Path, role: x509.ObjectIdentifier, names: Sequence[x509.GeneralName]) -> None:
        """Write the folder of one end: its key, its certificate, and the authority's certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"privhier {folder.name}")])
        builder = self._builder(subject, key)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        for extension, critical in (
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (_usage(signs_certificates=False), True),
            (x509.ExtendedKeyUsage([role]), True),
            (x509.SubjectAlternativeName(names), False),
            (issuer, False),
        ):
            builder = builder.add_extension(extension, critical=critical)
        certificate = builder.sign(self.key, hashes.SHA256())
        folder.mkdir(mode=0o700)
        _write(folder / KEY, _key_pem(key))
        _write(folder / CERTIFICATE, certificate.public_bytes(serialization.Encoding.PEM))
        _write(folder / AUTHORITY, self.pem)

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        public = key.public_key()
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.since)
            .not_valid_after(self.until)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _names(hosts: Sequence[str]) -> list[x509.GeneralName]:
    """Hosts as the names a certificate holds: addresses as addresses, the rest as DNS names."""
    found: list[x509.GeneralName] = []
    for host in dict.fromkeys(hosts):
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(host)))
            continue
        except ValueError:
            pass
        # A port, a path or a blank would make a certificate that fits no call.
        if not host.isascii() or not host or any(letter in host for letter in ":/[] \t\n"):
            raise ConfigError(
                key="--host",
                value=host,
                rule="must be a host name or an IP address, without a port",
                remedy="For instance: --host cloud.example --host 192.0.2.7",
            )
        found.append(x509.DNSName(host))
    if not found:
        raise ConfigError(
            key="--host", value=None, rule="is required", remedy="Name the host that edges will call"
        )
    return found


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, data: bytes) -> None:
    """A new file that only its owner can read, from its first moment on."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
