"""The line's model: bytes against the codec's own, times against closed forms and a second derivation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from privhier.errors import ConfigError
from privhier.planner.line import FRAME_HEADER, WINDOW, Link, Message, Slowdown, simulate
from privhier.uplink.codec import ReleaseMessage, encode
from privhier.uplink.sizes import ReleaseFormat

BARE = Link(8e5, segment_headers=0, processor=False)  # 100,000 bytes a second
QUEUES = [1, 2, 4, 16]


def size_of(seconds: float, link: Link = BARE) -> int:
    """Bytes that occupy the line about so long."""
    return round(seconds * link.bytes_per_second) - 30


def period(messages: list[Message], link: Link = BARE, **options) -> float:
    """Seconds from one message to the next, long after the start."""
    timeline = simulate(messages, link, **options)
    half = len(messages) // 2
    return (timeline.trained[-1] - timeline.trained[half - 1]) / (len(messages) - half)


@pytest.mark.parametrize("queue", QUEUES)
@pytest.mark.parametrize(
    ("edge", "line", "cloud"), [(0.5, 0.1, 0.2), (0.1, 0.5, 0.2), (0.1, 0.2, 0.5), (0.3, 0.3, 0.3)]
)
def test_the_slowest_of_edge_line_and_cloud_sets_the_pace(edge, line, cloud, queue):
    size = size_of(line)
    assert period([Message(edge, size, 0.0, cloud)] * 100, queue=queue) == pytest.approx(
        max(edge, BARE.seconds(size), cloud), rel=1e-6
    )


@pytest.mark.parametrize("queue", QUEUES)
def test_the_first_message_takes_everything_one_after_the_other(queue):
    link = Link(8e5, latency=0.25, processor=False)
    timeline = simulate([Message(0.5, 5000, 0.1, 0.2)], link, queue=queue)
    assert timeline.arrived == [pytest.approx(0.5 + link.seconds(5000) + 0.25)]
    assert timeline.trained == [pytest.approx(timeline.arrived[0] + 0.1 + 0.2)]
    assert timeline.seconds == timeline.trained[0]


@pytest.mark.parametrize("queue", QUEUES)
def test_over_a_long_line_a_queue_of_q_sends_q_and_one_messages_a_round_trip(queue):
    link, size = Link(8e5, latency=0.5, segment_headers=0, processor=False), 5000
    round_trip = 0.02 + link.seconds(size) + 0.01 + 2 * 0.5
    messages = [Message(0.02, size, 0.01, 0.03)] * 200
    expected = max(0.03, link.seconds(size), round_trip / (queue + 1))
    assert period(messages, link, queue=queue) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("queue", QUEUES)
def test_the_edge_is_never_further_ahead_than_two_queues(queue):
    timeline = simulate([Message(0.01, 1000, 0.001, 1.0)] * 60, BARE, queue=queue)
    for number in range(2 * queue, 60):
        assert timeline.sent[number] >= timeline.trained[number - 2 * queue] - 1e-9
    assert timeline.sent[2 * queue - 1] < 1.0, "and it may be that far ahead"


def by_recurrence(messages: list[Message], link: Link, queue: int) -> list[float]:
    """When each message is trained on: the same protocol written as a recurrence (no full windows)."""
    returned, line, released, acknowledged, trained = 0.0, 0.0, 0.0, list[float](), list[float]()
    for number, message in enumerate(messages):
        put = returned + message.edge
        line = max(put, line) + link.seconds(message.size)
        received = max(line + link.latency, released) + message.receive
        trained.append(max(received, trained[-1] if trained else 0.0) + message.cloud)
        late = trained[number - queue] if message.queued and number >= queue else 0.0
        released = max(received, late)
        acknowledged.append(released + link.latency)
        returned = max(put, acknowledged[number - queue] if number >= queue else 0.0)
    return trained


@pytest.mark.parametrize("seed", range(20))
def test_the_simulation_agrees_with_a_recurrence_on_uneven_messages(seed):
    rng = np.random.default_rng(seed)
    edge, receive, cloud = rng.exponential((0.1, 0.01, 0.1), (50, 3)).T * rng.uniform(0.2, 3, (3, 1))
    sizes, queued = rng.integers(100, 20_000, 50), rng.random(50) < 0.8
    messages = [
        Message(float(e), int(s), float(r), float(c), bool(q))
        for e, s, r, c, q in zip(edge, sizes, receive, cloud, queued, strict=True)
    ]
    link = Link(8e5, latency=float(rng.uniform(0, 0.05)), processor=False)
    queue = int(rng.integers(1, 6))
    expected = by_recurrence(messages, link, queue)
    assert simulate(messages, link, queue=queue).trained == pytest.approx(expected, rel=1e-9)


def test_more_bits_and_longer_queues_never_take_longer():
    rng = np.random.default_rng(0)
    messages = [
        Message(float(e), int(s), 0.01, float(c), number % 7 != 0)
        for number, (e, s, c) in enumerate(rng.uniform((0.05, 2e3, 0.05), (0.3, 6e4, 0.3), (60, 3)))
    ]

    def seconds(rate: float, queue: int) -> float:
        return simulate(messages, Link(rate, latency=0.02, processor=False), queue=queue).seconds

    rates = [1e5, 5e5, 1e6, 5e6, 1e8]
    table = np.array([[seconds(rate, queue) for queue in QUEUES] for rate in rates])
    assert (np.diff(table, axis=0) <= 1e-9).all()
    assert (np.diff(table, axis=1) <= 1e-9).all()
    assert table[0, 0] > 2 * table[-1, -1]


def test_two_busy_sides_slow_each_other_down_and_an_idle_one_does_not():
    # A cloud's work of c takes 1.2 c, in which the edge does 1.2 c / 1.5: its period is 0.1 + 1.2 c / 3.
    slow = Slowdown(edge=1.5, cloud=1.2)
    both = [Message(0.1, 0, 0.0, 0.1)] * 200
    assert period(both, slowdown=slow) == pytest.approx(0.1 + 0.1 * 1.2 / 3, rel=0.005)
    alone = [Message(0.1, 0, 0.0, 0.0)] * 100
    assert period(alone, slowdown=slow) == pytest.approx(0.1)
    some = [Message(0.1, 0, 0.0, 0.025)] * 200
    assert period(some, slowdown=slow) == pytest.approx(0.1 + 0.025 * 1.2 / 3, rel=0.005)


def test_what_exceeds_the_window_waits_until_the_cloud_reads_on():
    link, size = Link(8 * WINDOW, segment_headers=0, processor=False), 2 * WINDOW
    first = link.seconds(size)
    # The cloud takes 10 s to receive a message: the second one's first half is in the window meanwhile.
    timeline = simulate([Message(0.0, size, 10.0), Message(0.0, size, 0.0)], link)
    assert timeline.arrived[0] == pytest.approx(first)
    assert timeline.arrived[1] == pytest.approx(first + 10 + first / 2, rel=1e-3)


def test_a_long_line_carries_one_window_a_round_trip():
    assert Link(1e9, latency=0.05).bytes_per_second == pytest.approx(WINDOW / 0.1)
    assert Link(1e6, latency=0.05).bytes_per_second == pytest.approx(1e6 / 8)


def test_busy_seconds_add_up():
    messages = [Message(0.1, 5000, 0.02, 0.3)] * 10
    timeline = simulate(messages, BARE)
    assert timeline.edge_busy == pytest.approx(1.0)
    assert timeline.line_busy == pytest.approx(10 * BARE.seconds(5000))
    assert timeline.cloud_busy == pytest.approx(3.0)


@pytest.mark.parametrize("size", [1, 1448, 100_000, 2_000_000])
def test_framing_costs_what_its_headers_sum_up_to(size):
    plain, secret = Link(1e6).wire_bytes(size), Link(1e6, tls=True).wire_bytes(size)
    assert Link(1e6, segment_headers=0).wire_bytes(size) >= size + FRAME_HEADER + 5 + 9
    assert plain == pytest.approx(size * (1 + 66 / 1448), rel=0.002, abs=145)
    assert 0 < secret - plain <= 150 + size * 23 / 16_384
    assert Link(1e6).wire_bytes(0) == 0


def test_nothing_takes_no_time():
    assert simulate([], BARE).seconds == 0
    assert Link(math.inf).seconds(10**9) == 0


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: Link(0.0), "--bitrate"),
        (lambda: Link(math.nan), "--bitrate"),
        (lambda: Link(1e6, latency=-1.0), "--latency"),
        (lambda: simulate([], BARE, queue=0), "link.queue"),
    ],
)
def test_impossible_lines_are_refused(make, key):
    with pytest.raises(ConfigError) as caught:
        make()
    assert caught.value.key == key


@pytest.mark.parametrize("wire", ["float32", "float16", "int8", "int4"])
@pytest.mark.parametrize(
    ("shape", "rows", "tasks"), [((8,), 1, 1), ((7,), 64, 2), ((3, 5, 5), 31, 1), ((64, 8, 8), 128, 3)]
)
def test_bytes_are_the_codecs_own(wire, shape, rows, tasks):
    form, rng = ReleaseFormat(shape, wire, tasks), np.random.default_rng(rows)
    places = [
        ("train", "joint", 0, 0),
        ("train", "joint", 12, 390),
        ("val", "cloud", 0, 7),
        ("test", "joint", 1, 99),
    ]
    for split, phase, epoch, batch in places:
        message = ReleaseMessage(
            run_id="0123456789abcdef",
            split=split,
            phase=phase,
            epoch=epoch,
            batch=batch,
            records=rng.choice(2**31 - 1, rows, replace=False).astype(np.int64),
            payload=rng.integers(-7, 8, (rows, *shape)).astype(np.float32),
            task_labels=rng.integers(0, 5, (rows, tasks)) if split == "train" else None,
            wire=wire,
        )
        found = form.bytes_of(rows, split=split, phase=phase, epoch=epoch, batch=batch)
        assert found == len(encode(message))


def test_fewer_bits_a_value_make_shorter_messages():
    sizes = [
        ReleaseFormat((64, 8, 8), wire).bytes_per_record for wire in ("float32", "float16", "int8", "int4")
    ]
    assert all(second < 0.52 * first for first, second in itertools.pairwise(sizes))
    assert sizes[2] <= 0.26 * sizes[0]
