import gzip
import json

import pytest

from tfllm.data import tables
from tfllm.data.tables import Field, read_rows
from tfllm.errors import UserError

TEXT_AND_LABEL = [Field("text"), Field("label", tables.label), Field("text_pair", optional=True)]


def write(folder, name, content):
    path = folder / name
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


def rows(path, fields=TEXT_AND_LABEL, **options):
    return list(read_rows(path, fields, **options))


def test_the_same_rows_come_from_every_kind_of_file(tmp_path):
    expected = [{"text": 'a "b", c', "label": "1"}, {"text": "é", "label": "0", "text_pair": "p"}]
    lines = [json.dumps(row) for row in expected]
    tsv = 'text\tlabel\ttext_pair\na "b", c\t1\t\né\t0\tp\n'
    comma = 'label,text,text_pair\r\n1,"a ""b"", c",\r\n0,é,p\r\n'
    for name, content in [
        ("a.jsonl", "\n".join(lines)),
        ("b.ndjson.gz", "\n\n".join(lines) + "\n"),
        ("c.tsv", tsv),
        ("d.csv", comma),
        ("e.csv.gz", comma),
    ]:
        assert rows(write(tmp_path, name, content)) == expected, name


def test_columns_are_named_or_numbered(tmp_path):
    headed = write(tmp_path, "a.tsv", "id\tstars\treview\n7\t3\tgood\n")
    bare = write(tmp_path, "b.tsv", "7\t3\tgood\n")
    expected = [{"text": "good", "label": "3"}]
    assert rows(headed, columns={"text": "review", "label": "stars"}) == expected
    assert rows(bare, columns={"text": "3", "label": "2"}) == expected
    assert rows(headed, columns={"text": "3", "label": "2"}, header=True) == expected


def test_a_quoted_cell_of_a_csv_may_have_lines(tmp_path):
    path = write(tmp_path, "a.csv", 'text,label\n"one\ntwo",1\nthree,\n')
    with pytest.raises(UserError, match="a.csv line 4: expected a label .* in 'label', got ''"):
        rows(path)
    assert next(read_rows(path, TEXT_AND_LABEL)) == {"text": "one\ntwo", "label": "1"}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", '{"text": "a", "label": 1}\n[1]\n', "line 2: expected a JSON object, got"),
        ("a.jsonl", '{"text": "a"}', "line 1: expected a column 'label', got text. Say which"),
        ("a.jsonl", '{"text": 3, "label": 1}', "line 1: expected a text in 'text', got '3'"),
        ("a.jsonl", '{"text": "a", "label": 1.5}', "expected a label"),
        ("a.tsv", "hello\t1\n", "line 1: expected the columns text, label, got 'hello', '1'"),
        ("a.tsv", "text\tlabel\none\n", "line 2: expected 2 columns, got 1"),
        ("a.csv", 'text,label\n"a"b,1\n', "line 2: .*expected after"),
        ("a.tsv", b"text\tlabel\n\xff\t1\n", "line 2: expected UTF-8"),
        ("a.txt", "text", "must be .jsonl, .tsv or .csv"),
        ("a.csv", "text,label,text\na,1,b\n", "line 1: expected one column 'text', got 2"),
    ],
)
def test_what_does_not_fit_is_named_with_file_and_line(tmp_path, name, content, words):
    with pytest.raises(UserError, match=words) as error:
        rows(write(tmp_path, name, content))
    assert name in str(error.value)


def test_a_cell_may_be_long_and_one_of_a_tsv_may_have_a_carriage_return(tmp_path):
    long = "x" * 1_000_000
    for name, content in [
        ("a.csv", f'\ufefftext,label\r\n"{long}",1\r\n'),
        ("a.tsv", f"text\tlabel\r\n{long}\t1\r\n"),
    ]:
        assert rows(write(tmp_path, name, content)) == [{"text": long, "label": "1"}]
    assert rows(write(tmp_path, "b.tsv", "text\tlabel\na\rb\t1\n"))[0]["text"] == "a\rb"


@pytest.mark.parametrize(
    ("name", "content", "column", "words"),
    [
        ("a.tsv", "text\tlabel\na\t1\n", "other", "expected the columns text, label, other, got"),
        ("a.tsv", "text\tlabel\na\t1\n", "3", "line 2: expected a column 3, got 2 columns"),
        ("a.jsonl", '{"text": "a", "label": 1}', "other", "No row up to .*line 1 has a column oth"),
    ],
)
def test_an_optional_column_that_is_named_must_be_somewhere(tmp_path, name, content, column, words):
    with pytest.raises(UserError, match=words):
        rows(write(tmp_path, name, content), columns={"text_pair": column})


def test_a_damaged_file_is_no_shorter_table(tmp_path):
    whole = gzip.compress(b"text\tlabel\n" + b"a\t1\n" * 5000)
    path = tmp_path / "a.tsv.gz"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="cannot be read whole"):
        rows(path)


def test_an_unknown_field_is_refused(tmp_path):
    with pytest.raises(UserError, match="no field 'txt'; there are text, label, text_pair"):
        rows(write(tmp_path, "a.jsonl", ""), columns={"txt": "x"})


def test_values_are_read_as_what_they_are():
    assert [tables.label(value) for value in ("x", 3, 3.0, True)] == ["x", "3", "3", "True"]
    assert tables.number("1e-3") == 0.001
    assert tables.whole("12") == 12
    assert tables.texts("a") == ["a"]
    assert tables.anything('{"a": [1]}') == {"a": [1]}
    assert tables.text("a\ud800") == "a\ufffd"
    assert tables.anything({"\ud800": ["\ud800", 1]}) == {"\ufffd": ["\ufffd", 1]}
    for read, value in [
        (tables.number, "nan"),
        (tables.number, True),
        (tables.whole, "-1"),
        (tables.whole, 1.5),
        (tables.texts, [1]),
        (tables.anything, "{"),
    ]:
        with pytest.raises(ValueError, match="a "):
            read(value)
