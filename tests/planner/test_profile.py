"""Counted operations and memory against closed forms; timed stages on the code that training runs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from privhier.config import Choice, RunConfig, load_config
from privhier.errors import ConfigError, PrivhierError
from privhier.models.network import build_network
from privhier.planner.counting import count_cloud, count_edge, count_operations, count_whole, saved_bytes
from privhier.planner.devices import Device, Machines, load_device
from privhier.planner.profile import profile
from privhier.planner.timing import TimingJob, typical
from privhier.planner.timing_process import Side, Worker
from privhier.planner.timing_whole import time_jpeg, whole_network
from privhier.training.trained import network_of

CLASSES = ({"smiling": 2}, {"male": 2})
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def config(repository) -> RunConfig:
    return load_config(repository / "configs" / "debug.yaml", ["training.batch_size=16", "runtime.threads=1"])


def job(config: RunConfig, steps: int = 1, **model: object) -> TimingJob:
    chosen = config.model.model_copy(update=model)
    return TimingJob(config.model_copy(update={"model": chosen}), *CLASSES, steps)


def test_operations_of_a_convolution_are_twice_its_multiply_accumulates():
    layer, x = nn.Conv2d(3, 8, 3, padding=1, bias=False), torch.zeros(4, 3, 10, 10)
    forward = 2 * 4 * 10 * 10 * 8 * 3 * 9
    assert count_operations(lambda: layer(x)) == forward
    # Backward, once for the weights; the images need no gradient.
    assert count_operations(lambda: layer(x).sum().backward()) == 2 * forward


def test_saved_bytes_are_what_the_backward_pass_needs_once_and_without_weights():
    model = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 30))
    x = torch.zeros(4, 10)
    # The first layer keeps its input; ReLU and the second layer keep the same output.
    assert saved_bytes(lambda: model(x), model) == 4 * (4 * 10 + 4 * 20)
    assert saved_bytes(lambda: model(x)) > 4 * (4 * 10 + 4 * 20), "weights would count"


def test_counted_edge_and_cloud_make_up_the_network(config):
    chosen = job(config, bottleneck=config.model.bottleneck.model_copy(update={"kind": "none", "size": None}))
    edge, tail = network_of(chosen.config, 32, *CLASSES)
    whole = count_whole(chosen, *whole_network(chosen))
    first, second = count_edge(chosen, edge), count_cloud(chosen, tail, edge.release_shape)
    assert first.forward + second.forward == pytest.approx(whole.forward)
    assert first.step > 2.5 * first.forward, "forward, and backward for weights and for features"
    weights = sum(p.numel() for p in edge.parameters())
    assert first.memory.parameters == first.memory.gradients == 4 * weights
    assert first.memory.optimizer == 8 * weights, "Adam keeps two values a weight"
    assert first.memory.total > first.memory.activations > 16 * 4 * 3 * 32 * 32


def test_memory_grows_with_the_batch_and_operations_an_image_do_not(config):
    counts = []
    for size in (16, 64):
        training = config.training.model_copy(update={"batch_size": size})
        chosen = TimingJob(config.model_copy(update={"training": training}), *CLASSES, 1)
        edge, _ = network_of(chosen.config, 32, *CLASSES)
        counts.append(count_edge(chosen, edge))
    assert counts[1].memory.activations == 4 * counts[0].memory.activations
    assert counts[1].memory.parameters == counts[0].memory.parameters
    assert counts[1].step == counts[0].step


def test_sgd_with_momentum_keeps_one_value_a_weight_and_dp_sgd_one_gradient_a_record(config):
    optimizer = config.training.edge.model_copy(update={"name": "sgd"})
    training = config.training.model_copy(update={"edge": optimizer})
    private = config.edge.model_validate({"dp_sgd": {"noise_multiplier": 1.0, "physical_batch_size": 8}})
    alike = config.runtime.model_copy(update={"channels_last": False})  # as under DP-SGD in any case
    config = config.model_copy(update={"training": training, "runtime": alike})
    plain = TimingJob(config, *CLASSES, 1)
    hooked = TimingJob(config.model_copy(update={"edge": private}), *CLASSES, 1)
    found = []
    for chosen in (plain, hooked):
        edge, _ = network_of(chosen.config, 32, *CLASSES)
        found.append(count_edge(chosen, edge).memory)
    assert found[0].optimizer == found[0].gradients
    assert found[1].gradients == 9 * found[0].gradients
    assert found[1].activations == found[0].activations / 2, "eight records at a time, and not sixteen"


def test_every_usable_cut_is_profiled_and_the_others_say_why_not(config):
    wide = config.model.bottleneck.model_copy(update={"kind": "channels", "size": 30})
    chosen = job(config, bottleneck=wide)
    found = profile(
        TimingJob(chosen.config, *CLASSES, 1), edge=Side(1), cloud=Side(1), together=False, whole=False,
        cuts=["stage1", "stage2"],
    )  # fmt: skip
    assert list(found.cuts) == ["stage2"]
    assert "model.bottleneck.size=30 must be at most 24" in found.skipped["stage1"]
    cut = found.cuts["stage2"]
    assert cut.form.shape == (30, 8, 8)
    assert (cut.form.wire, cut.form.tasks, cut.form.rows) == ("float32", 1, 256)
    assert (cut.slowdown.edge, cut.slowdown.cloud) == (1, 1)
    for times in (cut.edge, cut.cloud):
        timed = {name: value for name, value in vars(times).items() if name != "split"}
        assert all(0 < value < 10 for value in timed.values()), timed
        assert times.split == 0
    assert cut.edge.step > 3 * cut.edge.release, "a step is a whole batch, forward and backward"
    assert found.whole is None


def test_the_settings_of_a_run_change_what_is_timed_but_nothing_is_solved_for(config):
    release = {"mechanism": "gaussian", "target_epsilon": 3.0, "clip": {"quantile": 0.5, "epsilon": 1.0}}
    data = config.model_dump(mode="json") | {"release": release | {"quantize": "int8"}}
    data["edge"] = {"dp_sgd": {"target_epsilon": 3.0}}
    data["defense"] = {"name": "none"}
    chosen = TimingJob(RunConfig.model_validate(data), *CLASSES, 1)
    ready = chosen.for_timing
    assert ready.release.sigma == 0.1
    assert ready.release.quantile is None
    assert ready.edge.dp_sgd is not None
    assert ready.edge.dp_sgd.target_epsilon is None
    found = profile(
        TimingJob(chosen.config, *CLASSES, 1), edge=Side(1), cloud=Side(1), together=False, whole=False,
        cuts=["stage1"],
    )  # fmt: skip
    assert found.cuts["stage1"].form.wire == "int8"


def test_a_batch_that_no_message_holds_is_no_cut(config):
    training = config.training.model_copy(update={"batch_size": 8192})
    none = config.model.bottleneck.model_copy(update={"kind": "none", "size": None})
    model = config.model.model_copy(update={"bottleneck": none})
    with pytest.raises(ConfigError) as caught:
        profile(
            TimingJob(config.model_copy(update={"training": training, "model": model}), *CLASSES),
            edge=Side(1), cloud=Side(1), together=False, cuts=["stage1"],
        )  # fmt: skip
    assert "a message at most" in str(caught.value)


def test_cores_need_processes(config):
    with pytest.raises(ConfigError):
        profile(TimingJob(config, *CLASSES), edge=Side(1, (0,)), cloud=Side(1), together=False)


@pytest.mark.slow
def test_both_sides_are_timed_in_processes_of_their_own(config, tmp_path):
    found = profile(
        TimingJob(config, *CLASSES, 1), edge=Side(1, (0,)), cloud=Side(1), cuts=["stage3"], scratch=tmp_path
    )
    cut = found.cuts["stage3"]
    assert found.together
    assert cut.slowdown.edge >= 1
    assert cut.slowdown.cloud >= 1
    assert cut.edge.split > 0
    assert found.whole is not None
    assert min(found.whole.edge.step, found.whole.cloud.step) > 0
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


def test_a_side_that_fails_says_so_and_ends(config, tmp_path):
    with (
        Worker("edge", Side(1), tmp_path) as worker,
        pytest.raises(PrivhierError, match=r"model.cut.*stage9"),
    ):
        worker.prepare(job(config, cut="stage9"))


def test_the_median_of_as_many_laps_as_asked():
    calls: list[int] = []

    class Quick:
        steps, least_seconds = 5, 0.0

    typical(lambda: calls.append(1), Quick(), CPU)  # type: ignore[arg-type]
    assert len(calls) == 6, "the first one does not count"


def test_jpeg_bytes_are_those_of_files():
    flat = torch.zeros(3, 3, 32, 32, dtype=torch.uint8).numpy()
    noisy = torch.randint(0, 256, (3, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    small, encode, decode = time_jpeg(flat, quality=90)
    large, *_ = time_jpeg(noisy.to(torch.uint8).numpy(), quality=90)
    assert 300 < small < 1000 < large < 3 * 32 * 32
    assert min(encode, decode) > 0


def test_a_device_takes_its_counted_operations_over_its_speed(tmp_path):
    from privhier.planner.counting import Count, Memory
    from privhier.planner.line import Slowdown
    from privhier.planner.profile import CutProfile
    from privhier.planner.stages import CloudTimes, EdgeTimes
    from privhier.uplink.sizes import ReleaseFormat

    none = Memory(0, 0, 0, 0)
    cut = CutProfile(
        "a", ReleaseFormat((8,)), EdgeTimes(step=0.5, pack=0.1), CloudTimes(step=0.3, cached=0.2),
        Slowdown(1.5, 1.5), Count(1e6, 3e6, none), Count(2e6, 6e6, none),
    )  # fmt: skip
    path = tmp_path / "phone.yaml"
    path.write_text("name: phone\noperations_per_second: 1.0e+9\nefficiency: 0.1\nmemory_bytes: 1000000\n")
    phone = load_device(path)
    edge, cloud, slowdown = Machines(edge=phone).fit(cut, 10)
    assert edge.step == pytest.approx(3e6 * 10 / 1e8)
    assert edge.pack == pytest.approx(0.1 * edge.step / 0.5), "what is not counted scales alike"
    assert (cloud.step, slowdown.edge) == (0.3, 1)
    _, cloud, _ = Machines(cloud=phone).fit(cut, 10)
    assert cloud.cached == pytest.approx(6e6 * 10 / 1e8)
    edge, cloud, _ = Machines(cloud_speed=10).fit(cut, 10)
    assert (edge.step, cloud.step) == (0.5, pytest.approx(0.03))
    assert Machines().fit(cut, 10)[2].edge == 1.5, "one machine: each slows the other down"


@pytest.mark.parametrize("text", ["[]", "name: x", "operations_per_second: 0", "speed: 1", "a: [", ""])
def test_a_file_that_is_no_device_is_refused(tmp_path, text):
    path = tmp_path / "device.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError):
        load_device(path)
    with pytest.raises(ConfigError):
        load_device(tmp_path / "absent.yaml")
    assert Device(operations_per_second=1).efficiency < 1


def test_the_whole_network_is_the_backbone_without_a_bottleneck(config):
    edge, tail = whole_network(job(config))
    reference, _ = build_network(
        config.model, image_size=32, task_classes=CLASSES[0], sensitive_classes=CLASSES[1], seed=0
    )
    assert len(list(edge.bottleneck)) == len(list(tail.expander)) == 0
    assert len(list(reference.bottleneck)) > 0


def test_the_whole_network_holds_nothing_of_a_defense(config):
    """Neither an outlet, which may not even fit a map this wide, nor the filter that undoes it."""
    defended = config.model_copy(update={"defense": Choice(name="gain")})
    edge, tail = whole_network(job(defended, matched_filter=True))
    assert isinstance(edge.outlet, nn.Identity)
    assert len(list(tail.expander)) == 0
