"""Files that are written whole or not at all, numbers and trees; and the lock that is waited for."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from infrai_async.local import _files
from infrai_async.local._files import read_number, remove_tree, write_whole
from infrai_async.local._locks import Lock


@pytest.fixture(params=[0o000, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Any:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize("mode", [0o600, 0o644], ids=oct)
def test_a_file_has_its_mode_whatever_the_umask_and_whatever_was_there(tmp_path: Path, mode: int) -> None:
    fresh, old = tmp_path / "fresh", tmp_path / "old"
    old.touch(mode=0o666)
    for path in (fresh, old):
        write_whole(path, "text", mode=mode)
        assert (path.stat().st_mode & 0o7777, path.read_text()) == (mode, "text")


def test_a_file_is_its_owners_alone_from_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: seen.append(os.fstat(descriptor).st_mode & 0o777))
    write_whole(tmp_path / "file", b"bytes")
    assert seen[0] == 0o600
    assert (tmp_path / "file").read_bytes() == b"bytes"


def test_a_reader_never_sees_half_of_a_file(tmp_path: Path) -> None:
    path, contents = tmp_path / "file", {bytes([letter]) * 300_000 for letter in b"ab"}
    write_whole(path, min(contents))
    ended = threading.Event()

    def write() -> None:
        for _ in range(50):
            for content in contents:
                write_whole(path, content, durable=False)
        ended.set()

    writer = threading.Thread(target=write)
    writer.start()
    read = set()
    while not ended.is_set():
        read.add(path.read_bytes())
    writer.join()
    assert read <= contents


def test_what_is_durable_is_synced_before_it_is_named_and_its_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    sync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (steps.append("content"), sync(descriptor)))
    monkeypatch.setattr(Path, "replace", lambda path, to: (steps.append("name"), replace(path, to))[1])
    monkeypatch.setattr(_files, "sync_directory", lambda directory: steps.append(directory.name))
    write_whole(tmp_path / "file", "text")
    assert steps == ["content", "name", tmp_path.name]
    write_whole(tmp_path / "file", "text", durable=False)
    assert steps[3:] == ["name"]


@pytest.mark.parametrize("there", [None, "before"])
@pytest.mark.parametrize("failing", ["fsync", "content"])
def test_a_failure_leaves_what_was_there_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str, there: str | None
) -> None:
    path = tmp_path / "file"
    if there is not None:
        path.write_text(there)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "the disk is full")

    if failing == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    with pytest.raises((OSError, UnicodeEncodeError)):
        write_whole(path, "\ud800" if failing == "content" else "after")
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == ({} if there is None else {"file": there})


def test_what_cannot_be_replaced_stays(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_whole(tmp_path / "directory", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["directory"]


def test_what_a_killed_writer_left_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "file.part").write_text("half of it, and longer than the")
    write_whole(tmp_path / "file", "whole")
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"file": "whole"}


@pytest.mark.parametrize(
    ("content", "number"), [("5432", 5432), ("17\n/data\n", 17), ("", None), ("none", None), (None, None)]
)
def test_the_number_in_a_file(tmp_path: Path, content: str | None, number: int | None) -> None:
    if content is not None:
        (tmp_path / "file").write_text(content)
    assert read_number(tmp_path / "file") == number


def test_a_tree_goes_and_what_is_gone_is_no_failure(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "inside").mkdir(parents=True)
    (tree / "inside" / "file").touch()
    remove_tree(tree)
    remove_tree(tree)
    remove_tree(tree, quietly=True)
    assert not tree.exists()


def test_what_cannot_go_is_said_unless_it_may_stay(tmp_path: Path) -> None:
    path = tmp_path / "file"  # a file is no tree: for root everything else can be deleted
    path.touch()
    remove_tree(path, quietly=True)
    with pytest.raises(NotADirectoryError):
        remove_tree(path)
    assert path.exists()


def test_a_lock_is_refused_or_waited_for(tmp_path: Path) -> None:
    with Lock(tmp_path / "lock"):
        with pytest.raises(BlockingIOError):
            Lock(tmp_path / "lock")
        waiting = threading.Thread(target=lambda: Lock(tmp_path / "lock", wait=True).release())
        waiting.start()
        waiting.join(0.05)
        assert waiting.is_alive()
    waiting.join(10)
    assert not waiting.is_alive()
