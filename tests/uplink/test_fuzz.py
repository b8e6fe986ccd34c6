"""Hostile input of bounded length; the long one is ``make fuzz``."""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from privhier.errors import UplinkError
from privhier.uplink.certificates import Certificates, make_certificates
from privhier.uplink.codec import decode
from privhier.uplink.frames import Hello, decode_ack, decode_frame, encode_frame
from privhier.uplink.grid import LIMITS, dequantize, is_canonical, quantize
from privhier.uplink.journal import Journal
from privhier.uplink.server import OPTIONS, UplinkServer
from privhier.uplink.tls import channel_credentials, server_credentials


@pytest.mark.parametrize("seed", [0, 1])
def test_no_hostile_message_is_decoded_and_each_is_refused_by_name(fuzzing, seed):
    refused: dict[str, Counter[str]] = {}
    for kind, data in islice(fuzzing.Forge(seed).messages(), 4000):
        with pytest.raises(UplinkError) as caught:
            decode(data)
        assert caught.value.key.startswith("uplink.")
        refused.setdefault(kind, Counter())[caught.value.key] += 1
    assert len(refused) == 21
    for kind in ("signed body", "signed layout"):  # these come past header and checksum, to every rule
        assert len(refused[kind]) >= 3
    everything = sum(refused.values(), Counter())
    fields = "header body checksum size payload records run_id split phase epoch batch edge task_labels"
    assert everything.keys() == {f"uplink.{field}" for field in fields.split()}


def test_the_honest_messages_are_decoded(fuzzing):
    messages = [decode(data) for data in fuzzing.honest()]
    assert len({message.key for message in messages}) == len(messages) == 24


def test_no_hostile_greeting_is_taken_for_another(fuzzing):
    taken = 0
    for _, data in islice(fuzzing.Forge(0).greetings(), 4000):
        try:
            hello = Hello.decode(data)
        except UplinkError:
            continue
        assert hello.encode() == data
        assert hello != fuzzing.HELLO
        taken += 1
    assert 0 < taken < 1000  # well-formed greetings of other runs: the cloud's to refuse


def test_frames_and_acknowledgements_of_random_bytes():
    rng = np.random.default_rng(0)
    for size in [*range(80), *[41] * 200, *rng.integers(0, 2000, 500)]:
        data = rng.bytes(int(size))
        if 40 < size <= 1040:
            sequence, chain, message = decode_frame(data, max_bytes=1000)
            assert encode_frame(sequence, message, chain) == data
        else:
            with pytest.raises(UplinkError, match="must have 41 to 1040 bytes"):
                decode_frame(data, max_bytes=1000)
        if size == 41 and data[0] < 2:
            assert decode_ack(data) == struct.unpack("<xQ32s", data)
        else:
            with pytest.raises(UplinkError, match="must be 41 bytes"):
                decode_ack(data)


@pytest.mark.parametrize("wire", LIMITS)
def test_only_what_quantize_gives_is_on_the_grid(wire):
    limit, rng = LIMITS[wire], np.random.default_rng(0)
    on_grid = 0
    for trial in range(3000):
        size = int(rng.integers(0, (2, limit // 2 + 2, limit + 1, 129)[trial % 4]))
        q = rng.integers(-min(size, 128), min(size, 127) + 1, (1, 3)).astype(np.int8)
        exponents = rng.choice(
            [-128, -127, 0, 1, 127, 129 - limit.bit_length(), *rng.integers(-128, 128, 5)], 1
        )
        exponents = np.clip(exponents, -128, 127).astype(np.int8)
        values = q.astype(np.float64) * 2.0 ** float(exponents[0])
        expected = bool((np.abs(values) <= np.finfo(np.float32).max).all())
        if expected:
            again = quantize(dequantize(q, exponents), limit)
            expected = np.array_equal(again[0], q) and np.array_equal(again[1], exponents)
        assert is_canonical(q, exponents, limit) == expected, (q, exponents)
        on_grid += expected
    assert 300 < on_grid < 2700


@dataclass
class Cloud:
    """A server of one run, and what it has."""

    server: UplinkServer
    inbox: Any
    folder: Path
    certificates: Certificates

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    def bytes(self) -> bytes:
        return b"".join(path.read_bytes() for path in sorted(self.folder.glob("*")))

    def channel(self, credentials: grpc.ChannelCredentials | None = None) -> grpc.Channel:
        own = credentials or channel_credentials(self.certificates.edges[0])
        return grpc.secure_channel(self.target, own, options=OPTIONS)


@pytest.fixture
def cloud(fuzzing, tmp_path) -> Iterator[Cloud]:
    made = make_certificates(tmp_path / "certs", hosts=["127.0.0.1"])
    inbox = fuzzing.inbox(tmp_path / "journal")
    server = UplinkServer({fuzzing.RUN: inbox}, "127.0.0.1:0", credentials=server_credentials(made.cloud))
    server.start()
    yield Cloud(server, inbox, tmp_path / "journal", made)
    server.stop(0)
    inbox.journal.close()


def send(fuzzing, channel: grpc.Channel, number: int, data: bytes) -> None:
    """Send an honest message and insist that it is taken."""
    parts = (fuzzing.HELLO.encode(), fuzzing.frame(number, data))
    assert fuzzing.knock(channel, parts) == fuzzing.Answer("OK", "", (number, number + 1))


def test_a_live_cloud_refuses_every_attempt_and_serves_the_honest_edge_between_them(fuzzing, cloud):
    good, refused = fuzzing.honest(), 0
    with cloud.channel() as channel:
        assert fuzzing.knock(channel, (fuzzing.HELLO.encode(),)).wanted == (0,)
        attempts = fuzzing.Forge(0).attempts(lambda: cloud.inbox.journal.following(0))
        for number, data in enumerate(good):
            before = cloud.bytes()
            for attempt in islice(attempts, 40):
                answer = fuzzing.knock(channel, attempt.parts)
                assert fuzzing.verdict(attempt, answer, number) is None
                refused += attempt.refused
            assert cloud.bytes() == before
            send(fuzzing, channel, number, data)
    assert sum(cloud.server.refusals.values()) == refused
    cloud.inbox.journal.close()
    again = Journal(cloud.folder)
    assert [again.read(number) for number in range(len(again))] == good
    again.close()


def test_what_a_refusal_quotes_of_a_greeting_never_breaks_the_refusal(fuzzing, cloud):
    fields = json.loads(fuzzing.HELLO.encode())
    with cloud.channel() as channel:
        for word in ("\ud800", "\udfff" * 500, "\n\r\x00", "ä" * 3000, "%s{}", "x" * 15_000):
            for changed in ({**fields, word: 1}, {**fields, "run_id": word}, {**fields, "protocol": word}):
                answer = fuzzing.knock(channel, (json.dumps(changed, separators=(",", ":")).encode(),))
                assert answer.code == "FAILED_PRECONDITION", answer
                assert answer.text.startswith("uplink."), answer
                assert len(answer.text) <= 1000


def test_clients_without_a_fitting_certificate_and_noise_reach_nothing(fuzzing, cloud, tmp_path):
    other = make_certificates(tmp_path / "other", hosts=["127.0.0.1"])
    trusted = (cloud.certificates.cloud / "authority.pem").read_bytes()
    keys = [(other.edges[0] / name).read_bytes() for name in ("key.pem", "cert.pem")]
    parts = (fuzzing.HELLO.encode(), fuzzing.frame(0, fuzzing.honest()[0]))
    for credentials in (
        grpc.ssl_channel_credentials(trusted),
        grpc.ssl_channel_credentials(trusted, *keys),
        channel_credentials(other.edges[0]),
    ):
        with cloud.channel(credentials) as channel:
            assert fuzzing.knock(channel, parts).code == "UNAVAILABLE"
    with grpc.insecure_channel(cloud.target) as channel:
        assert fuzzing.knock(channel, parts).code == "UNAVAILABLE"
    for noise in islice(fuzzing.noises(0), 60):
        fuzzing.shout(cloud.server.port, noise)
    assert not cloud.inbox.hellos
    assert not cloud.server.refusals
    with cloud.channel() as channel:
        send(fuzzing, channel, 0, fuzzing.honest()[0])


def test_other_calls_bombs_and_cut_streams_reach_nothing(fuzzing, cloud):
    hello, data = fuzzing.HELLO.encode(), fuzzing.frame(0, fuzzing.honest()[0])
    with cloud.channel() as channel:
        for path in (
            "/privhier.Uplink/Receive",
            "/privhier.Uplink/",
            "/x/Send",
            "/grpc.health.v1.Health/Check",
        ):
            with pytest.raises(grpc.RpcError) as caught:
                list(channel.stream_stream(path)(iter([hello]), timeout=20))
            assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
        bomb = fuzzing.knock(channel, (hello, bytes(100 * 2**20)), compression=grpc.Compression.Gzip)
        assert bomb.code == "RESOURCE_EXHAUSTED"
        assert fuzzing.knock(channel, ()) == fuzzing.Answer("OK", "", ())
        for parts in ((), (hello,), (hello, data[:-1])):
            stream = channel.stream_stream("/privhier.Uplink/Send")(iter(parts))
            stream.cancel()
        assert len(cloud.inbox.journal) == 0
        send(fuzzing, channel, 0, fuzzing.honest()[0])


def test_the_same_seed_draws_the_same_attempts(fuzzing):
    first, again, other = (list(islice(fuzzing.Forge(seed).attempts(lambda: 3), 300)) for seed in (5, 5, 6))
    assert first == again != other
