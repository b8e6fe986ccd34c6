import errno
import json
import os
import subprocess
import sys
import textwrap
from contextlib import suppress

import numpy as np
import pytest

from privhier.errors import CheckpointError, OutputError
from privhier.storage.sealed import Sealed, loaded_array, read_json


@pytest.fixture
def sealed(tmp_path):
    folder = Sealed(tmp_path)
    folder.write_json(tmp_path / "facts.json", {"n": 3})
    folder.write_array(tmp_path / "releases" / "test.npy", np.arange(12.0).reshape(3, 4))
    return folder


def test_what_was_written_is_read_back(sealed):
    assert sealed.read_json(sealed.root / "facts.json") == {"n": 3}
    for mmap in (False, True):
        found = sealed.read_array(sealed.root / "releases" / "test.npy", mmap=mmap)
        assert (found == np.arange(12.0).reshape(3, 4)).all()
    assert sealed.lists(sealed.root / "facts.json")
    assert not sealed.lists(sealed.root / "other.json")


def test_every_flipped_bit_cut_and_addition_is_refused(sealed):
    for path in (sealed.root / "facts.json", sealed.root / "releases" / "test.npy"):
        data = path.read_bytes()
        damaged = [data[:length] for length in range(0, len(data), 7)] + [data + b"\n"]
        for bit in range(0, 8 * len(data), 5):
            flipped = bytearray(data)
            flipped[bit // 8] ^= 1 << bit % 8
            damaged.append(bytes(flipped))
        for wrong in damaged:
            path.write_bytes(wrong)
            with pytest.raises(CheckpointError, match="edited or damaged"):
                sealed.checked(path)
        path.write_bytes(data)
        sealed.checked(path)


def test_files_that_are_missing_swapped_or_foreign_are_refused(sealed, tmp_path):
    path = sealed.root / "facts.json"
    (sealed.root / "more.json").write_text("{}")
    with pytest.raises(CheckpointError, match="put there by something else"):
        sealed.read_json(sealed.root / "more.json")
    sealed.write_json(sealed.root / "other.json", {"n": 4})
    path.write_bytes((sealed.root / "other.json").read_bytes())
    with pytest.raises(CheckpointError, match="edited or damaged"):
        sealed.read_json(path)
    path.unlink()
    with pytest.raises(CheckpointError, match="is missing"):
        sealed.read_json(path)
    assert sealed.lists(path)


def test_an_older_version_of_a_file_is_refused(sealed):
    path = sealed.root / "facts.json"
    before = path.read_bytes()
    sealed.write_json(path, {"n": 4})
    path.write_bytes(before)
    with pytest.raises(CheckpointError, match="edited or damaged"):
        sealed.read_json(path)


def test_damaged_digests_are_refused_and_never_guess(sealed):
    listing, path = sealed.path.read_bytes(), sealed.root / "facts.json"
    for bit in range(0, 8 * len(listing), 7):
        flipped = bytearray(listing)
        flipped[bit // 8] ^= 1 << bit % 8
        sealed.path.write_bytes(bytes(flipped))
        with suppress(CheckpointError):
            assert sealed.read_json(path) == {"n": 3}  # the bit lay in another file's entry
    for text in (
        b"",
        b"[]",
        b"{}",
        listing[:-9],
        b'{"schema": "privhier.digests/1", "bound": {}, "files": 3}',
    ):
        sealed.path.write_bytes(text)
        with pytest.raises(CheckpointError):
            sealed.read_json(path)
    sealed.path.unlink()
    with pytest.raises(CheckpointError, match=r"no digests\.json"):
        sealed.require()


def test_a_folder_belongs_to_one_configuration_and_one_data_set(sealed):
    sealed.bind(config="a" * 64, data="b" * 64)
    sealed.bind(config="a" * 64, data="b" * 64)
    with pytest.raises(CheckpointError, match=r"dataset\.root"):
        sealed.bind(config="a" * 64, data="c" * 64)
    with pytest.raises(CheckpointError, match="another configuration"):
        sealed.bind(config="d" * 64)
    sealed.match("data", "b" * 64)
    with pytest.raises(CheckpointError, match="another data set"):
        sealed.match("data", "c" * 64)
    with pytest.raises(CheckpointError, match="no person"):
        sealed.match("person", "c" * 64)
    assert sealed.bound("data") == "b" * 64


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("moment", ["before the rename", "after the rename"])
def test_a_kill_at_any_moment_leaves_a_folder_that_can_be_gone_on_with(tmp_path, first, moment):
    code = f"""
        import os, signal, sys
        from pathlib import Path
        from privhier.storage.sealed import Sealed
        folder, path = Sealed(Path({str(tmp_path)!r})), Path({str(tmp_path)!r}) / "facts.json"
        if not {first}:
            folder.write_json(path, "old")
        if {moment!r} == "before the rename":
            Path.replace = lambda self, target: os.kill(os.getpid(), signal.SIGKILL) if (
                target == path) else os.replace(self, target)
        else:
            Sealed.settle = lambda self, path: os.kill(os.getpid(), signal.SIGKILL)
        folder.write_json(path, "new")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False)
    assert done.returncode == -9
    folder, path = Sealed(tmp_path), tmp_path / "facts.json"
    if moment == "after the rename":
        assert folder.read_json(path) == "new"
    elif first:
        assert not path.exists()
        assert not folder.lists(path)  # never finished, so nobody misses it
    else:
        assert folder.read_json(path) == "old"
    folder.write_json(path, "newer")
    assert folder.read_json(path) == "newer"
    assert all(len(digests) == 1 for digests in json.loads(folder.path.read_text())["files"].values())


def test_a_writer_that_fails_leaves_the_old_file_readable(sealed):
    path = sealed.root / "facts.json"

    def fail():
        with sealed.writing(path) as stream:
            stream.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert sealed.read_json(path) == {"n": 3}
    assert not list(sealed.root.glob("*.tmp"))


def test_a_full_disk_is_a_typed_error_and_loses_nothing(sealed, monkeypatch):
    def full(fd):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        sealed.write_json(sealed.root / "facts.json", {"n": 4})
    monkeypatch.undo()
    assert sealed.read_json(sealed.root / "facts.json") == {"n": 3}


def test_processes_that_write_at_once_lose_no_digest(tmp_path):
    code = """
        import sys
        from pathlib import Path
        from privhier.storage.sealed import Sealed
        folder = Sealed(Path(sys.argv[1]))
        for number in range(20):
            folder.write_json(folder.root / f"{sys.argv[2]}-{number}.json", number)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)]
    running = [subprocess.Popen([*command, name]) for name in "ab"]
    assert [process.wait() for process in running] == [0, 0]
    folder = Sealed(tmp_path)
    assert [folder.read_json(tmp_path / f"{n}-{i}.json") for n in "ab" for i in range(20)] == [*range(20)] * 2


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b"[NaN]", b"[" * 100_000, b"{}x"])
def test_what_is_no_json_is_a_typed_error(tmp_path, text):
    path = tmp_path / "history.json"
    path.write_bytes(text)
    with pytest.raises(CheckpointError, match=r"history\.json.*is not JSON"):
        read_json(path)
    with pytest.raises(CheckpointError, match="is missing"):
        read_json(tmp_path / "none.json")


@pytest.mark.parametrize("kind", ["empty", "cut", "text", "pickled", "archive"])
def test_what_is_no_array_is_a_typed_error(tmp_path, kind):
    path = tmp_path / "test.npy"
    np.save(path, np.arange(100))
    if kind == "pickled":
        np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    elif kind == "archive":
        with path.open("wb") as stream:
            np.savez(stream, a=np.arange(3))
    else:
        path.write_bytes({"empty": b"", "cut": path.read_bytes()[:-5], "text": b"hello"}[kind])
    for mmap in (False, True):
        with pytest.raises(CheckpointError, match="array"):
            loaded_array(path, mmap=mmap)
