import codecs
import gzip
import os
import tracemalloc

import pytest

from tfllm.data import sources
from tfllm.data.sources import MAX_LINE_BYTES, Skips, find_files, read_lines
from tfllm.errors import UserError


def lines_of(path, named=False):
    skips = Skips(log=False)
    return [line for _, line in read_lines(str(path), named, skips)], skips


def names(paths):
    return [os.path.basename(path) for path in paths]


def test_a_folder_gives_its_files_in_sorted_order_without_hidden_ones(tmp_path):
    for name in ("b/2.txt", "b/1.txt", "a.md", ".hidden.txt", ".git/config", "c"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert names(find_files([tmp_path])) == ["a.md", "c", "1.txt", "2.txt"]


def test_a_pattern_is_expanded_through_folders(tmp_path):
    for name in ("1.txt", "deep/er/2.txt", "deep/3.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    assert names(find_files([f"{tmp_path}/**/*.txt"])) == ["1.txt", "2.txt"]


def test_a_file_found_twice_is_read_once_and_stays_named(tmp_path):
    path = tmp_path / "a[1].txt"
    path.write_text("x")
    assert find_files([tmp_path, f"{tmp_path}/./a[1].txt", f"{tmp_path}/*.txt"]) == {
        str(path): True
    }
    assert find_files([tmp_path]) == {str(path): False}


def test_a_prepared_folder_below_a_source_is_not_read(tmp_path):
    for name in ("text.txt", "data/wiki/meta.json", "data/wiki/validation.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    assert names(find_files([tmp_path])) == ["text.txt"]


@pytest.mark.parametrize("name", ["missing.txt", "*.nothing"])
def test_a_source_that_means_no_file_is_refused_by_name(tmp_path, name):
    with pytest.raises(UserError, match="Nothing to read at .*" + name.replace("*", r"\*")):
        find_files([tmp_path / name])


def test_gzip_is_told_by_its_bytes_not_by_its_name(tmp_path):
    (tmp_path / "a").write_bytes(gzip.compress(b"one\ntwo"))
    (tmp_path / "b.gz").write_bytes(b"plain\n")
    assert lines_of(tmp_path / "a")[0] == [b"one\n", b"two"]
    assert lines_of(tmp_path / "b.gz")[0] == [b"plain\n"]


def test_a_byte_order_mark_is_dropped(tmp_path):
    (tmp_path / "a").write_bytes(codecs.BOM_UTF8 + b"one\n")
    assert lines_of(tmp_path / "a")[0] == [b"one\n"]


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_a_line_above_the_limit_is_counted_and_never_held(tmp_path, compress):
    size = 12 * MAX_LINE_BYTES
    content = b"before\n" + b"x" * size + b"\nafter\n" + b"y" * MAX_LINE_BYTES
    (tmp_path / "a").write_bytes(compress(content))
    del content
    tracemalloc.start()
    lines, skips = lines_of(tmp_path / "a")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert lines == [b"before\n", b"\n", b"after\n", b"\n"]
    assert skips.counts == {"long_lines": 2}
    assert "line 2 has over" in str(skips)
    assert "line 4 has over" in str(skips)
    assert peak < size / 2


def test_the_longest_line_that_is_not_above_the_limit_is_kept(tmp_path):
    content = b"x" * (MAX_LINE_BYTES - 1) + b"\n"
    (tmp_path / "a").write_bytes(content + content[:-1])
    lines, skips = lines_of(tmp_path / "a")
    assert lines == [content, content[:-1]]
    assert not skips


@pytest.mark.parametrize("cut", [-20, 400])
def test_a_truncated_gzip_file_gives_what_comes_before_the_damage(tmp_path, cut):
    content = b"".join(b"line %d %s\n" % (i, os.urandom(20).hex().encode()) for i in range(3000))
    (tmp_path / "a.gz").write_bytes(gzip.compress(content)[:cut])
    lines, skips = lines_of(tmp_path / "a.gz")
    assert content.startswith(b"".join(lines))
    assert skips.counts == {"damaged_files": 1}
    assert "a.gz is damaged after" in str(skips)
    assert len(lines) > (2000 if cut < 0 else -1)


def test_garbage_in_a_gzip_file_is_counted_as_damage(tmp_path):
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"good\n") + gzip.compress(b"x" * 999)[:15])
    (tmp_path / "b.gz").write_bytes(b"\x1f\x8b\x08\x00 no gzip at all")
    (tmp_path / "c.gz").write_bytes(gzip.compress(b"good\n") + b"more that is not")
    for name in ("a.gz", "b.gz", "c.gz"):
        assert lines_of(tmp_path / name)[1].counts == {"damaged_files": 1}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x7fELF\0\0", "is not text: it has a NUL"),
        ("text".encode("utf-16"), "is UTF-16: convert it with `iconv"),
        ("这是中文文本。".encode("gbk"), "is not UTF-8: convert it with iconv"),
    ],
)
def test_what_is_not_utf8_text_is_counted_with_its_name(tmp_path, content, reason):
    (tmp_path / "a.txt").write_bytes(content)
    lines, skips = lines_of(tmp_path / "a.txt", named=True)
    assert lines == []
    assert skips.counts == {"binary_files": 1}
    assert f"a.txt {reason}" in str(skips)


def test_a_pipe_and_a_dangling_link_in_a_folder_are_counted(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "link.txt").symlink_to(tmp_path / "nowhere")
    skips = Skips(log=False)
    for path, named in find_files([tmp_path]).items():
        assert list(read_lines(path, named, skips)) == []
    assert skips.counts == {"unreadable_files": 2}


def test_a_pipe_that_was_named_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(UserError, match="pipe.txt cannot be read: it is not a regular file"):
        lines_of(tmp_path / "pipe.txt", named=True)


def test_progress_reports_every_byte_of_a_file_once(tmp_path):
    reported = []
    content = gzip.compress(os.urandom(300_000).hex().encode())
    (tmp_path / "a.gz").write_bytes(content)
    list(read_lines(str(tmp_path / "a.gz"), True, Skips(), reported.append))
    assert sum(reported) == len(content)
    assert len(reported) > 1


def test_only_the_first_few_of_a_kind_are_logged(caplog):
    skips = Skips()
    for i in range(9):
        skips.add("long_lines", f"line {i}")
    assert skips.counts == {"long_lines": 9}
    assert caplog.messages == ["line 0", "line 1", "line 2 (more of these are only counted)"]
    assert caplog.records[0].name == sources.__name__
