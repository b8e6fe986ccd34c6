"""Mutual TLS: certificates that fit work, everything else is refused, by our checks and by the handshake."""

from __future__ import annotations

import ipaddress
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID
from typer import Typer
from typer.testing import CliRunner

from privhier.cli.certs import certs
from privhier.errors import ConfigError, OutputError, PrivhierError
from privhier.uplink.certificates import _Authority, make_certificates
from privhier.uplink.tls import channel_credentials, is_loopback, server_credentials

HOSTS = ["localhost", "127.0.0.1"]
NAMES = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_certificates(tmp_path_factory.mktemp("tls") / "certs", hosts=HOSTS, edges=2).folder


@pytest.fixture(scope="module")
def stranger(tmp_path_factory) -> Path:
    return make_certificates(tmp_path_factory.mktemp("tls") / "certs", hosts=HOSTS).folder


Serve = Callable[[grpc.ServerCredentials], tuple[int, list[bytes]]]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a server that counts what reaches it; returns its port and what came in."""
    servers = []

    def start(credentials: grpc.ServerCredentials) -> tuple[int, list[bytes]]:
        came: list[bytes] = []

        def handle(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
            for data in requests:
                came.append(data)
                yield data[::-1]

        server = grpc.server(ThreadPoolExecutor(2))
        handler = grpc.stream_stream_rpc_method_handler(handle)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t", {"m": handler}),))
        port = server.add_secure_port("127.0.0.1:0", credentials)
        server.start()
        servers.append(server)
        return port, came

    yield start
    for server in servers:
        server.stop(0).wait()


def call(port: int, credentials: grpc.ChannelCredentials, host: str = "127.0.0.1") -> list[bytes]:
    with grpc.secure_channel(f"{host}:{port}", credentials) as channel:
        return list(channel.stream_stream("/t/m")(iter([b"abc", b"xyz"]), timeout=20))


def refused(port: int, came: list[bytes], credentials: grpc.ChannelCredentials) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        call(port, credentials)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert came == []


def raw(folder: Path, authority: Path) -> grpc.ChannelCredentials:
    """Credentials without our checks, to see what the other side says."""
    parts = [(folder / name).read_bytes() for name in ("key.pem", "cert.pem")]
    return grpc.ssl_channel_credentials((authority / "authority.pem").read_bytes(), *parts)


@pytest.mark.parametrize("edge", ["edge", "edge-1"])
@pytest.mark.parametrize("host", HOSTS)
def test_both_sides_with_their_folders_understand_each_other(folder, serve, edge, host):
    port, came = serve(server_credentials(folder / "cloud"))
    assert call(port, channel_credentials(folder / edge), host) == [b"cba", b"zyx"]
    assert came == [b"abc", b"xyz"]


def test_a_folder_works_when_it_is_handed_over_alone(folder, serve, tmp_path):
    shutil.copytree(folder / "cloud", tmp_path / "a")
    shutil.copytree(folder / "edge", tmp_path / "b")
    port, _ = serve(server_credentials(tmp_path / "a"))
    assert call(port, channel_credentials(tmp_path / "b")) == [b"cba", b"zyx"]


def test_a_client_without_a_certificate_is_refused(folder, serve):
    port, came = serve(server_credentials(folder / "cloud"))
    bare = grpc.ssl_channel_credentials((folder / "authority.pem").read_bytes())
    refused(port, came, bare)


def test_a_client_in_plain_text_is_refused(folder, serve):
    port, came = serve(server_credentials(folder / "cloud"))
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel, pytest.raises(grpc.RpcError):
        list(channel.stream_stream("/t/m")(iter([b"abc"]), timeout=20))
    assert came == []


def test_a_client_of_another_authority_is_refused_even_if_it_trusts_ours(folder, stranger, serve):
    port, came = serve(server_credentials(folder / "cloud"))
    refused(port, came, raw(stranger / "edge", authority=folder))
    refused(port, came, channel_credentials(stranger / "edge"))


def test_a_cloud_of_another_authority_is_refused_by_the_edge(folder, stranger, serve):
    port, came = serve(server_credentials(stranger / "cloud"))
    refused(port, came, raw(stranger / "edge", authority=folder))


def test_a_clouds_certificate_is_no_edges(folder, serve):
    port, came = serve(server_credentials(folder / "cloud"))
    refused(port, came, raw(folder / "cloud", authority=folder))


def test_an_edge_cannot_pose_as_the_cloud(folder, serve):
    authority = _Authority(*around_now())
    authority.issue(folder.parent / "posing", ExtendedKeyUsageOID.CLIENT_AUTH, NAMES)
    authority.issue(folder.parent / "calling", ExtendedKeyUsageOID.CLIENT_AUTH, NAMES)
    pair = [((folder.parent / "posing" / n).read_bytes()) for n in ("key.pem", "cert.pem")]
    port, came = serve(grpc.ssl_server_credentials([(pair[0], pair[1])], authority.pem, True))
    refused(port, came, channel_credentials(folder.parent / "calling"))


def test_a_certificate_for_another_host_is_refused_by_the_edge(tmp_path, serve):
    made = make_certificates(tmp_path / "c", hosts=["cloud.example", "192.0.2.7"])
    port, came = serve(server_credentials(made.cloud))
    refused(port, came, channel_credentials(made.edges[0]))


def around_now() -> tuple[datetime, datetime]:
    now = datetime.now(UTC)
    return now - timedelta(days=9), now + timedelta(days=9)


@pytest.mark.parametrize("days", [(-9, -1), (1, 9)], ids=["expired", "not yet valid"])
@pytest.mark.parametrize("side", ["client", "server"])
def test_a_certificate_out_of_its_time_is_refused_by_the_other_side(tmp_path, serve, days, side):
    authority, now = _Authority(*around_now()), datetime.now(UTC)

    def issue(name: str, role: x509.ObjectIdentifier, late: bool) -> Path:
        span = [now + timedelta(days=day) for day in days] if late else around_now()
        authority.since, authority.until = span
        authority.issue(tmp_path / name, role, NAMES)
        return tmp_path / name

    cloud = issue("cloud", ExtendedKeyUsageOID.SERVER_AUTH, side == "server")
    edge = issue("edge", ExtendedKeyUsageOID.CLIENT_AUTH, side == "client")
    pair = [((cloud / n).read_bytes()) for n in ("key.pem", "cert.pem")]
    port, came = serve(grpc.ssl_server_credentials([(pair[0], pair[1])], authority.pem, True))
    refused(port, came, raw(edge, authority=edge))
    late, read = (edge, channel_credentials) if side == "client" else (cloud, server_credentials)
    with pytest.raises(ConfigError, match="is valid from"):
        read(late)


def test_certificates_say_what_they_are_for(folder):
    def load(path: Path) -> x509.Certificate:
        return x509.load_pem_x509_certificate((folder / path).read_bytes())

    def value(certificate: x509.Certificate, kind: Any) -> Any:
        return certificate.extensions.get_extension_for_class(kind).value

    authority, cloud, edge = load("authority.pem"), load("cloud/cert.pem"), load("edge-1/cert.pem")
    assert value(authority, x509.BasicConstraints) == x509.BasicConstraints(ca=True, path_length=0)
    assert value(authority, x509.KeyUsage).key_cert_sign
    assert not value(authority, x509.KeyUsage).digital_signature
    for leaf in (cloud, edge):
        assert not value(leaf, x509.BasicConstraints).ca
        assert value(leaf, x509.KeyUsage).digital_signature
        assert not value(leaf, x509.KeyUsage).key_cert_sign
        leaf.verify_directly_issued_by(authority)
    assert list(value(cloud, x509.ExtendedKeyUsage)) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert list(value(edge, x509.ExtendedKeyUsage)) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert list(value(cloud, x509.SubjectAlternativeName)) == NAMES
    assert len({load(p).serial_number for p in ("cloud/cert.pem", "edge/cert.pem", "edge-1/cert.pem")}) == 3
    spans = authority.not_valid_after_utc - authority.not_valid_before_utc
    assert spans == timedelta(days=30, minutes=5)
    assert load_pem_private_key((folder / "authority/key.pem").read_bytes(), None).public_key() == (
        authority.public_key()
    )


def test_only_the_owner_can_read_and_only_the_authority_folder_holds_its_key(folder):
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    three = ("authority.pem", "cert.pem", "key.pem")
    ends = {f"{end}/{name}" for end in ("cloud", "edge", "edge-1") for name in three}
    assert files == {"authority.pem", "authority/key.pem", *ends}
    for path in (folder, *folder.rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600)
    key = (folder / "authority" / "key.pem").read_bytes()
    assert sum((folder / name).read_bytes() == key for name in files) == 1


def test_nothing_is_overwritten_and_nothing_is_left_half_written(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    made = make_certificates(tmp_path / "empty", hosts=HOSTS)
    before = (made.cloud / "key.pem").read_bytes()
    with pytest.raises(OutputError, match="must be a new or an empty folder"):
        make_certificates(tmp_path / "empty", hosts=HOSTS)
    assert (made.cloud / "key.pem").read_bytes() == before
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="must be a new or an empty folder"):
        make_certificates(tmp_path / "file", hosts=HOSTS)
    with pytest.raises(OutputError, match="cannot be written"):
        make_certificates(tmp_path / "file" / "deeper", hosts=HOSTS)
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OutputError, match="disk full"):
        make_certificates(tmp_path / "new", hosts=HOSTS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file"]


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"hosts": []}, "--host"),
        ({"hosts": ["cloud.example:7000"]}, "--host"),
        ({"hosts": ["http://cloud"]}, "--host"),
        ({"hosts": ["two words"]}, "--host"),
        ({"hosts": ["wölke.example"]}, "--host"),
        ({"hosts": [""]}, "--host"),
        ({"days": 0}, "--days"),
        ({"days": 3651}, "--days"),
        ({"edges": 0}, "--edges"),
    ],
)
def test_arguments_out_of_range_write_nothing(tmp_path, arguments, key):
    with pytest.raises(ConfigError) as caught:
        make_certificates(tmp_path / "c", **{"hosts": HOSTS, **arguments})
    assert caught.value.key == key
    assert not any(tmp_path.iterdir())


def test_ipv6_hosts_are_addresses_too(tmp_path):
    made = make_certificates(tmp_path / "c", hosts=["::1", "localhost"])
    certificate = x509.load_pem_x509_certificate((made.cloud / "cert.pem").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("::1")]


def swap(name: str, source: str) -> Callable[[Path, Path], None]:
    return lambda folder, stranger: shutil.copy(stranger / source, folder / "edge" / name)


BROKEN = {
    "key missing": (lambda f, s: (f / "edge/key.pem").unlink(), "cannot be read: No such file"),
    "cert missing": (lambda f, s: (f / "edge/cert.pem").unlink(), "cannot be read: No such file"),
    "authority missing": (lambda f, s: (f / "edge/authority.pem").unlink(), "cannot be read"),
    "cert garbage": (lambda f, s: (f / "edge/cert.pem").write_bytes(b"\0\xff"), "no certificate"),
    "authority empty": (lambda f, s: (f / "edge/authority.pem").write_bytes(b""), "no certificate"),
    "key garbage": (lambda f, s: (f / "edge/key.pem").write_text("KEY"), "no unencrypted private key"),
    "key of another": (swap("key.pem", "edge/key.pem"), "does not belong to cert.pem"),
    "authority of another": (swap("authority.pem", "authority.pem"), "was not issued by the authority"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_files_that_do_not_fit_are_named(folder, stranger, tmp_path, case):
    shutil.copytree(folder, tmp_path / "c")
    breaks, words = BROKEN[case]
    breaks(tmp_path / "c", stranger)
    with pytest.raises(ConfigError, match=words) as caught:
        channel_credentials(tmp_path / "c" / "edge")
    assert caught.value.key == "--certs"
    assert str(tmp_path / "c" / "edge") in str(caught.value.value)


def test_the_two_folders_are_not_interchangeable(folder):
    with pytest.raises(ConfigError, match="not made for the side of the edge"):
        channel_credentials(folder / "cloud")
    with pytest.raises(ConfigError, match="not made for the side of the cloud"):
        server_credentials(folder / "edge")
    with pytest.raises(ConfigError, match=r"cert\.pem.*cannot be read"):
        server_credentials(folder)


@pytest.mark.parametrize("day", [-1, 31])
def test_the_clock_decides_what_is_valid(folder, day):
    server_credentials(folder / "cloud")
    with pytest.raises(ConfigError, match="is valid from"):
        server_credentials(folder / "cloud", now=datetime.now(UTC) + timedelta(days=day))


def test_certificates_of_the_past_have_expired(tmp_path):
    made = make_certificates(tmp_path / "c", hosts=HOSTS, now=datetime.now(UTC) - timedelta(days=31))
    with pytest.raises(ConfigError, match="is valid from"):
        channel_credentials(made.edges[0])


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("LocalHost", True),
        ("127.0.0.1", True),
        ("127.9.8.7", True),
        ("::1", True),
        ("[::1]", True),
        ("0.0.0.0", False),
        ("::", False),
        ("128.0.0.1", False),
        ("127.0.0.1.example", False),
        ("localhost.example", False),
        ("", False),
        ("192.168.0.1", False),
        ("10.0.0.1", False),
    ],
)
def test_loopback_is_this_machine_and_nothing_else(host, expected):
    assert is_loopback(host) is expected


def test_the_verb_says_which_folder_goes_where(tmp_path):
    app = Typer()
    app.command()(certs)
    target = str(tmp_path / "c")
    done = CliRunner().invoke(app, [target, "--host", "127.0.0.1", "--edges", "2", "--days", "3"])
    assert done.exit_code == 0, done.output
    for words in (
        f"cloud: {target}/cloud",
        f"{target}/edge-1",
        f"yourself: {target}/authority",
        "valid until",
    ):
        assert words in done.output
    channel_credentials(tmp_path / "c" / "edge-1", now=datetime.now(UTC) + timedelta(days=2))
    again = CliRunner().invoke(app, [target])
    assert isinstance(again.exception, PrivhierError)
    default = CliRunner().invoke(app, [str(tmp_path / "d")])
    assert default.exit_code == 0
    certificate = x509.load_pem_x509_certificate((tmp_path / "d" / "cloud" / "cert.pem").read_bytes())
    assert list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value) == NAMES
