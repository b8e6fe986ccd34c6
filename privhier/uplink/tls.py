"""Mutual TLS for the line: gRPC credentials from a folder of certificates, checked before they are used.

Each side takes only a certificate of the same authority, made for the other side's role.
"""

from __future__ import annotations

import ipaddress
import stat
from datetime import UTC, datetime
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from privhier.errors import ConfigError
from privhier.uplink.certificates import AUTHORITY, CERTIFICATE, KEY, edges_named

_SERVER, _CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
_OWNERS = {_SERVER: "cloud", _CLIENT: "edge"}


def server_credentials(folder: Path, *, now: datetime | None = None) -> grpc.ServerCredentials:
    """The cloud's credentials; it refuses every client without a certificate of the same authority.

    Args:
        folder: With ``cert.pem``, ``key.pem`` and ``authority.pem``, which issued the first directly.
        now: The time to check against; default: the clock.

    Raises:
        ConfigError: A file is missing, unreadable, expired, of another role, or does not fit the others.
    """
    files = _read(folder, _SERVER, now)
    pair = (files[KEY], files[CERTIFICATE])
    return grpc.ssl_server_credentials([pair], files[AUTHORITY], require_client_auth=True)


def channel_credentials(
    folder: Path, *, edge: int | None = None, now: datetime | None = None
) -> grpc.ChannelCredentials:
    """An edge's credentials; arguments and errors as for ``server_credentials``.

    Args:
        folder: As there.
        edge: Which edge of the run this is: its certificate must name it. None: not checked here.
        now: As there.
    """
    files = _read(folder, _CLIENT, now)
    if edge is not None and edge not in (named := edges_named(files[CERTIFICATE])):
        names = ", ".join(map(str, sorted(named)))
        raise ConfigError(
            key="--certs",
            value=str(folder / CERTIFICATE),
            rule=f"is made for edge {names}, not for edge {edge}"
            if named
            else f"names no edge, so the cloud would not take it for edge {edge}",
            remedy=f"Give edge {edge} its own folder, of `privhier certs DIR --host NAME --edges {edge + 1}`",
        )
    return grpc.ssl_channel_credentials(files[AUTHORITY], files[KEY], files[CERTIFICATE])


def is_loopback(host: str) -> bool:
    """Whether traffic to ``host`` stays on this machine: 127.0.0.0/8, ``::1``, ``localhost``."""
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return address.is_loopback


def _read(folder: Path, role: x509.ObjectIdentifier, now: datetime | None) -> dict[str, bytes]:
    """The three files of one end; refused here, with a reason, is what a handshake would refuse without."""
    files = {}
    for name in (AUTHORITY, CERTIFICATE, KEY):
        try:
            if name == KEY and (folder / name).stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise _exposed(folder / name)
            files[name] = (folder / name).read_bytes()
        except OSError as error:
            raise _refused(folder / name, f"cannot be read: {error.strerror}") from error
    certificates = {}
    for name in (AUTHORITY, CERTIFICATE):
        try:
            certificates[name] = x509.load_pem_x509_certificate(files[name])
        except ValueError as error:
            raise _refused(folder / name, "is no certificate in PEM") from error
    try:
        key = serialization.load_pem_private_key(files[KEY], password=None)
    except (ValueError, TypeError) as error:
        raise _refused(folder / KEY, "is no unencrypted private key in PEM") from error
    moment = now or datetime.now(UTC)
    for name, certificate in certificates.items():
        since, until = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if not since <= moment <= until:
            raise _refused(
                folder / name, f"is valid from {since:%Y-%m-%d %H:%M} to {until:%Y-%m-%d %H:%M} UTC"
            )
    own = certificates[CERTIFICATE]
    if key.public_key() != own.public_key():
        raise _refused(folder / KEY, f"does not belong to {CERTIFICATE}")
    try:
        own.verify_directly_issued_by(certificates[AUTHORITY])
    except (ValueError, TypeError, InvalidSignature) as error:
        raise _refused(folder / CERTIFICATE, f"was not issued by the authority in {AUTHORITY}") from error
    if role not in _roles(own, folder / CERTIFICATE):
        raise _refused(folder / CERTIFICATE, f"is not made for the side of the {_OWNERS[role]}")
    return files


def _roles(certificate: x509.Certificate, path: Path) -> x509.ExtendedKeyUsage:
    try:
        return certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension) as error:
        raise _refused(path, "does not say which side it is made for") from error


def _exposed(path: Path) -> ConfigError:
    return ConfigError(
        key="--certs",
        value=str(path),
        rule=f"can be used by others (mode {stat.S_IMODE(path.stat().st_mode):04o}); a private key must not",
        remedy=f"If nobody has read it yet: chmod 600 {path}; else make new certificates",
    )


def _refused(path: Path, rule: str) -> ConfigError:
    return ConfigError(
        key="--certs",
        value=str(path),
        rule=rule,
        remedy="Make new ones with `privhier certs DIR --host NAME`, and give each side its own folder",
    )
