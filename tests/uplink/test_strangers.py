"""A certificate names its edge: whoever greets as another one learns nothing and leaves nothing behind."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from privhier.errors import ConfigError, UplinkError
from privhier.uplink.certificates import Certificates, _Authority, edges_named, make_certificates
from privhier.uplink.frames import decode_frame
from privhier.uplink.grpc_link import GrpcUplink
from privhier.uplink.inbox import Capacity, Inbox
from privhier.uplink.journal import Journal
from privhier.uplink.outgoing import OutgoingMessage
from privhier.uplink.server import OPTIONS, UplinkServer
from privhier.uplink.spool import Spool
from privhier.uplink.tls import channel_credentials, server_credentials

INVENTED = {"train": 7, "val": 7, "test": 7}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("tls") / "certs", hosts=["127.0.0.1"], edges=3)


def inbox_of_two(fuzzing, folder: Path) -> Inbox:
    return Inbox(
        config=fuzzing.CONFIG, run_id=fuzzing.RUN, form=fuzzing.FORM,
        capacity=Capacity(2, 10**6), epochs=fuzzing.EPOCHS, journal=Journal(folder, sync=False),
        agree=lambda hello: None,
    )  # fmt: skip


@contextmanager
def serving(inbox: Inbox, credentials, lines: list[str]) -> Iterator[int]:
    run = inbox._expected["run_id"]
    server = UplinkServer({run: inbox}, "127.0.0.1:0", credentials=credentials, report=lines.append)
    server.start()
    yield server.port
    server.stop(0)
    inbox.journal.close()


def channel(port: int, folder: Path) -> grpc.Channel:
    options = [*OPTIONS, ("grpc.use_local_subchannel_pool", 1)]
    return grpc.secure_channel(f"127.0.0.1:{port}", channel_credentials(folder), options=options)


def test_a_stranger_is_told_nothing_and_leaves_nothing(fuzzing, tmp_path, made):
    lines: list[str] = []
    honest = replace(fuzzing.HELLO, edges=2)
    secrets = (fuzzing.RUN, fuzzing.CONFIG, "(3, 2)", "smiling", "40", "7")
    with serving(
        inbox := inbox_of_two(fuzzing, tmp_path / "j"), server_credentials(made.cloud), lines
    ) as port:
        for edge, folder in ((0, made.edges[1]), (1, made.edges[0]), (0, made.edges[2]), (1, made.edges[2])):
            for hello in (
                replace(honest, edge=edge, records=INVENTED, folder="1" * 32),
                replace(honest, edge=edge, config="0" * 64),
                replace(honest, edge=edge, run_id="other"),
                replace(honest, edge=edge, shape=(1,)),
                replace(honest, edge=edge, task_classes={"x": 9}),
            ):
                with channel(port, folder) as line:
                    answer = fuzzing.knock(line, (hello.encode(), fuzzing.frame(0, fuzzing.honest()[0])))
                assert (answer.code, answer.text, answer.wanted) == ("PERMISSION_DENIED", "refused", ())
                assert not any(secret in answer.text for secret in secrets)
        assert not inbox.hellos
        assert any("names [1], not edge 0" in line for line in lines)
        with channel(port, made.edges[0]) as line:
            parts = (honest.encode(), fuzzing.frame(0, fuzzing.honest()[0]))
            assert fuzzing.knock(line, parts) == fuzzing.Answer("OK", "", (0, 1))
            other = fuzzing.knock(line, (replace(honest, config="0" * 64).encode(),))
        assert fuzzing.CONFIG in other.text  # the rightful edge is told what differs
        with channel(port, made.edges[1]) as line:  # but not what another edge said of itself
            other = fuzzing.knock(line, (replace(honest, edge=1, shape=(1,), folder="2" * 32).encode(),))
        assert "40" not in other.text


def test_a_certificate_without_a_name_is_refused_before_it_says_anything(fuzzing, tmp_path, made):
    now = datetime.now(UTC)
    authority = _Authority(now - timedelta(days=1), now + timedelta(days=1))
    hosts = [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    authority.issue(tmp_path / "cloud", ExtendedKeyUsageOID.SERVER_AUTH, hosts)
    authority.issue(tmp_path / "old", ExtendedKeyUsageOID.CLIENT_AUTH, [x509.DNSName("edge")])
    with pytest.raises(ConfigError, match=r"names no edge.*privhier certs DIR --host NAME --edges 3"):
        channel_credentials(tmp_path / "old", edge=2)
    lines: list[str] = []
    inbox = inbox_of_two(fuzzing, tmp_path / "j")
    with serving(inbox, server_credentials(tmp_path / "cloud"), lines) as port:
        for parts in ((replace(fuzzing.HELLO, edges=2).encode(),), (b"no greeting",)):
            with channel(port, tmp_path / "old") as line:
                answer = fuzzing.knock(line, parts)
            assert (answer.code, answer.text) == ("PERMISSION_DENIED", "refused")
        assert not inbox.hellos
        assert any("names no edge" in line for line in lines)


def test_the_edge_checks_its_own_certificate_first(made):
    channel_credentials(made.edges[1], edge=1)
    with pytest.raises(ConfigError, match="is made for edge 1, not for edge 0"):
        channel_credentials(made.edges[1], edge=0)
    assert [edges_named((folder / "cert.pem").read_bytes()) for folder in made.edges] == [{0}, {1}, {2}]
    assert edges_named((made.cloud / "cert.pem").read_bytes()) == edges_named(b"x") == set()


def issue(tmp_path: Path, names: list[str]) -> bytes:
    now = datetime.now(UTC)
    authority = _Authority(now, now + timedelta(days=1))
    authority.issue(tmp_path / "c", ExtendedKeyUsageOID.CLIENT_AUTH, [x509.DNSName(name) for name in names])
    return (tmp_path / "c" / "cert.pem").read_bytes()


@pytest.mark.parametrize(
    ("names", "edges"),
    [
        (["edge-0.privhier", "edge-12.privhier"], {0, 12}),
        (["edge-00.privhier", "edge-1.privhier.example", "xedge-1.privhier", "edge-1xprivhier"], set()),
        (["edge-*.privhier", "*.privhier", "edge-.privhier", "edge-123456.privhier"], set()),
    ],
)
def test_only_exact_names_count(tmp_path, names, edges):
    assert edges_named(issue(tmp_path, names)) == edges


def test_a_greeting_alone_binds_nobody(fuzzing, tmp_path):
    """In plain text anybody may greet; what an edge never sent a message after does not lock another out."""
    inbox = inbox_of_two(fuzzing, tmp_path)
    honest = replace(fuzzing.HELLO, edges=2)
    invented = replace(honest, records=INVENTED, folder="1" * 32)
    inbox.greet(invented, "a")
    with pytest.raises(UplinkError, match="another folder sends as this edge already"):
        inbox.greet(honest, "b")
    inbox.leave(invented, "a")
    inbox.greet(honest, "b")
    with pytest.raises(UplinkError, match="another folder"):
        inbox.greet(invented, "c")
    frame = decode_frame(fuzzing.frame(0, fuzzing.honest()[0]), max_bytes=10**6)
    with pytest.raises(UplinkError, match="another connection"):
        inbox.take(invented, frame, line="a")
    inbox.take(honest, frame, line="b")
    inbox.leave(honest, "b")
    for late in (invented, replace(honest, records=INVENTED)):  # now it is bound
        with pytest.raises(UplinkError):
            inbox.greet(late, "d")
    inbox.greet(honest, "e")
    inbox.journal.close()


def send(uplink: GrpcUplink, message: OutgoingMessage) -> None:
    """Until the cloud has it, or the edge ends."""
    try:
        uplink.send(message)
        uplink.close()
    finally:
        uplink.abandon()


End = Callable[[int, Path, list[str]], UplinkError]


@pytest.fixture
def ended(fuzzing, tmp_path) -> End:
    """Runs an edge with a folder of certificates against a port until it ends by itself."""

    def run(port: int, folder: Path, lines: list[str]) -> UplinkError:
        uplink = GrpcUplink(
            f"127.0.0.1:{port}", replace(fuzzing.HELLO, edges=2), Spool(tmp_path / "spool"),
            credentials=channel_credentials(folder), retry_seconds=0.05, report=lines.append,
        )  # fmt: skip
        with pytest.raises(UplinkError) as caught:
            send(uplink, fuzzing.upward(fuzzing.honest()[0]))
        return caught.value

    return run


def test_an_edge_whose_certificate_is_refused_ends_with_a_reason(fuzzing, tmp_path, made, ended):
    stranger = make_certificates(tmp_path / "other", hosts=["127.0.0.1"])
    inbox = inbox_of_two(fuzzing, tmp_path / "j")
    with serving(inbox, server_credentials(made.cloud), []) as port:
        wrong = ended(port, made.edges[1], [])
        assert "the cloud refused: refused" in wrong.rule
        assert "certificate name edge 0" in wrong.remedy
        distrusting = ended(port, stranger.edges[0], [])
        assert "the cloud's certificate is not accepted" in distrusting.rule
        credentials = refused_by_the_cloud(stranger.edges[0], made.cloud)
        lines: list[str] = []
        uplink = GrpcUplink(
            f"127.0.0.1:{port}", replace(fuzzing.HELLO, edges=2), Spool(tmp_path / "spool2"),
            credentials=credentials, retry_seconds=0.05, report=lines.append,
        )  # fmt: skip
        with pytest.raises(UplinkError, match="closes the line when it sees this edge's certificate"):
            send(uplink, fuzzing.upward(fuzzing.honest()[0]))
        assert len(lines) == 4
        assert "is given up" in lines[-1]
        assert Spool(tmp_path / "spool2").waiting == 1  # kept for --resume
        assert not inbox.hellos


def refused_by_the_cloud(own: Path, trusted: Path) -> grpc.ChannelCredentials:
    """What no folder that passes our checks holds: a certificate that expired on the way, say."""
    parts = [(own / name).read_bytes() for name in ("key.pem", "cert.pem")]
    return grpc.ssl_channel_credentials((trusted / "authority.pem").read_bytes(), *parts)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o620, 0o777])
def test_a_private_key_that_others_can_use_is_refused(tmp_path, mode):
    made = make_certificates(tmp_path / "c", hosts=["127.0.0.1"])
    for folder, read in ((made.edges[0], channel_credentials), (made.cloud, server_credentials)):
        (folder / "key.pem").chmod(mode)
        with pytest.raises(ConfigError, match=rf"mode {mode:04o}.*chmod 600"):
            read(folder)
        (folder / "key.pem").chmod(0o400)
        read(folder)
