"""The long fuzz: hostile messages against the decoder, and against a live cloud in a process of its own.

And crowds of hostile clients beside an honest edge (``fuzz_crowd.py``).

    python tests/uplink/fuzz_long.py --messages 100000 --seed 0

Prints what was refused by which name, the growth of memory, and what an honest edge could still do; exits
with 1 if anything was accepted, was refused without a typed error, or broke.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path

import fuzz_crowd
import fuzzing
import grpc
import psutil
from rich.console import Console
from rich.table import Table

from privhier.errors import UplinkError
from privhier.uplink.certificates import Certificates, make_certificates
from privhier.uplink.codec import decode
from privhier.uplink.journal import Journal
from privhier.uplink.server import OPTIONS, UplinkServer
from privhier.uplink.tls import channel_credentials, server_credentials

GROWTH_MIB = 32
"""More than this after the warm-up, over any number of messages, is a leak."""
WARM_UP = 0.1
_out = Console(highlight=False, soft_wrap=True)


class Findings:
    """What went wrong, and what was refused how often."""

    def __init__(self) -> None:
        self.wrong: Counter[str] = Counter()
        self.refused: Counter[tuple[str, str]] = Counter()

    def check(self, fine: bool, text: str) -> None:
        """Note ``text`` unless it is fine."""
        if not fine:
            self.wrong[text[:300]] += 1

    def show(self, title: str) -> None:
        """A table of kinds of input over names of refusals."""
        table = Table("kind", "refused as", "times", title=title, box=None, title_justify="left")
        for (kind, key), count in sorted(self.refused.items()):
            table.add_row(kind, key, str(count))
        _out.print(table)


def serve(pipe: Connection, journal: Path, certificates: Path, edges: int = 1) -> None:
    """The cloud's process: tells its port, then its state whenever it is asked, until the pipe closes."""
    inbox = fuzzing.inbox(journal, edges=edges)
    server = UplinkServer({fuzzing.RUN: inbox}, "127.0.0.1:0", credentials=server_credentials(certificates))
    server.start()
    pipe.send(server.port)
    try:
        while pipe.recv() == "state":
            refused = sum(server.refusals.values())
            pipe.send((len(inbox.journal), refused, len(inbox.hellos), resident(os.getpid())))
    except EOFError:
        pass
    server.stop(0)


def resident(process: int) -> float:
    """Resident memory of a process, MiB."""
    return float(psutil.Process(process).memory_info().rss) / 2**20


def fuzz_decoder(count: int, seed: int, findings: Findings) -> None:
    """Hostile messages against ``decode``."""
    warm = round(count * WARM_UP)
    base, started = 0.0, time.perf_counter()
    for number, (kind, data) in enumerate(islice(fuzzing.Forge(seed).messages(), count)):
        if number == warm:
            base = resident(os.getpid())
        try:
            decode(data)
        except UplinkError as error:
            findings.refused[kind, error.key] += 1
        except Exception as error:
            findings.check(False, f"{kind}: {type(error).__name__}: {error}")
        else:
            findings.check(False, f"{kind}: was decoded")
    grown = resident(os.getpid()) - base
    findings.check(grown < GROWTH_MIB, f"the decoder's process grew by {grown:.1f} MiB")
    seconds = time.perf_counter() - started
    findings.show(f"decode: {count} hostile messages in {seconds:.0f} s, memory {grown:+.1f} MiB")


def fuzz_cloud(count: int, seed: int, findings: Findings, folder: Path) -> None:
    """Hostile streams against a live cloud over mutual TLS, honest messages between them."""
    made = make_certificates(folder / "certs", hosts=["127.0.0.1"])
    context = multiprocessing.get_context("spawn")
    pipe, other = context.Pipe()
    process = context.Process(target=serve, args=(other, folder / "journal", made.cloud), daemon=True)
    process.start()
    other.close()
    port = pipe.recv()

    def state() -> tuple[int, int, int, float]:
        pipe.send("state")
        messages, refused, hellos, memory = pipe.recv()
        return messages, refused, hellos, memory

    strangers(port, made, max(20, count // 200), seed, findings, folder)
    findings.check(state()[:3] == (0, 0, 0), f"strangers left a trace: {state()[:3]}")
    started, warm, base, turned_away = time.perf_counter(), round(count * WARM_UP), 0.0, 0
    good, sent = fuzzing.honest(), 0
    target, own = f"127.0.0.1:{port}", channel_credentials(made.edges[0])
    with grpc.secure_channel(target, own, options=OPTIONS) as channel:
        hello = fuzzing.HELLO.encode()
        findings.check(fuzzing.knock(channel, (hello,)).wanted == (0,), "the honest greeting was refused")

        def honest() -> None:
            nonlocal sent
            findings.check(state()[0] == sent, f"the journal has {state()[0]} messages, not {sent}")
            answer = fuzzing.knock(channel, (hello, fuzzing.frame(sent, good[sent])))
            findings.check(answer == fuzzing.Answer("OK", "", (sent, sent + 1)), f"honest: {answer}")
            sent += 1

        attempts = fuzzing.Forge(seed).attempts(lambda: sent)
        every = -(-count // (len(good) - 1))
        for number, attempt in enumerate(islice(attempts, count)):
            if number == warm:
                base = state()[3]
            answer = fuzzing.knock(channel, attempt.parts)
            findings.check((wrong := fuzzing.verdict(attempt, answer, sent)) is None, wrong or "")
            findings.refused[attempt.kind, answer.key] += 1
            turned_away += attempt.refused
            if number % every == every - 1:
                honest()
        while sent < len(good):
            honest()
        for kind, compression in (("raw", None), ("a gzip bomb", grpc.Compression.Gzip)):
            for mib in (65, 100):
                answer = fuzzing.knock(channel, (hello, bytes(mib * 2**20)), compression=compression)
                findings.refused[f"oversize: {kind}", answer.code] += 1
                findings.check(answer.code == "RESOURCE_EXHAUSTED", f"oversize, {kind}: {answer}")
    messages, refused, hellos, memory = state()
    findings.check(process.is_alive(), f"the cloud ended with {process.exitcode}")
    findings.check((messages, hellos) == (len(good), 1), f"{messages} messages of {hellos} edges at the end")
    findings.check(refused == turned_away, f"{refused} typed refusals, {turned_away} hostile streams")
    findings.check(memory - base < GROWTH_MIB, f"the cloud's process grew by {memory - base:.1f} MiB")
    seconds = time.perf_counter() - started
    pipe.close()
    process.join(30)
    findings.check(process.exitcode == 0, f"the cloud ended with {process.exitcode}")
    journal = Journal(folder / "journal")
    findings.check([journal.read(n) for n in range(len(journal))] == good, "the journal differs")
    journal.close()
    findings.show(
        f"cloud: {count} hostile streams in {seconds:.0f} s, {refused} typed refusals, "
        f"{sent} honest messages taken and nothing else, memory {memory - base:+.1f} MiB"
    )


def strangers(port: int, made: Certificates, count: int, seed: int, findings: Findings, folder: Path) -> None:
    """Clients without a certificate, with another authority's, in plain text, and noise."""
    other = make_certificates(folder / "other", hosts=["127.0.0.1"])
    trusted = (made.cloud / "authority.pem").read_bytes()
    keys = [(other.edges[0] / name).read_bytes() for name in ("key.pem", "cert.pem")]
    clouds = [(made.cloud / name).read_bytes() for name in ("key.pem", "cert.pem")]
    ways = {
        "no certificate": grpc.ssl_channel_credentials(trusted),
        "another authority's certificate": grpc.ssl_channel_credentials(trusted, *keys),
        "another authority altogether": channel_credentials(other.edges[0]),
        "the cloud's own certificate": grpc.ssl_channel_credentials(trusted, *clouds),
        "plain text": None,
    }
    parts = (fuzzing.HELLO.encode(), fuzzing.frame(0, fuzzing.honest()[0]))
    noises = fuzzing.noises(seed)
    for _ in range(count):
        for kind, credentials in ways.items():
            target = f"127.0.0.1:{port}"
            # A pool of its own, or the next channel would take over a connection that stands already.
            options = [*OPTIONS, ("grpc.use_local_subchannel_pool", 1)]
            channel = (
                grpc.secure_channel(target, credentials, options=options)
                if credentials is not None
                else grpc.insecure_channel(target, options=options)
            )
            answer = fuzzing.knock(channel, parts)
            channel.close()
            findings.refused[f"client: {kind}", answer.code] += 1
            findings.check(answer.code == "UNAVAILABLE", f"{kind}: {answer}")
        fuzzing.shout(port, next(noises))
        findings.refused["client: noise", "closed"] += 1


def main() -> None:
    """Run all three and say how it ended."""
    parser = argparse.ArgumentParser(description="Hostile input for the uplink.")
    parser.add_argument(
        "--messages",
        type=int,
        default=100_000,
        help="of the first two parts; a thousandth of it is how many crowds come",
    )
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # thousands of failed handshakes are what is wanted
    decoder, cloud = Findings(), Findings()
    fuzz_decoder(chosen.messages, chosen.seed, decoder)
    with tempfile.TemporaryDirectory() as folder:
        fuzz_cloud(chosen.messages, chosen.seed, cloud, Path(folder))
    crowd = fuzz_crowd.Findings()
    with tempfile.TemporaryDirectory() as folder:
        fuzz_crowd.fuzz_crowd(max(24, chosen.messages // 1000), chosen.seed, crowd, Path(folder), serve)
    crowd.show(_out)
    wrong = decoder.wrong + cloud.wrong + crowd.wrong
    for text, count in wrong.most_common(30):
        _out.print(f"WRONG, {count} times: {text}", markup=False)
    _out.print("nothing accepted, nothing broken" if not wrong else f"{wrong.total()} findings")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
