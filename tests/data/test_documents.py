import gzip
import json
from pydoc_data.topics import topics

import pytest

from tfllm.data import Skips, read_documents
from tfllm.errors import UserError


def read(path, **options):
    skips = Skips(log=False)
    return list(read_documents(path, skips=skips, **options)), dict(skips.counts)


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_paragraphs_stay_together_until_they_have_the_size(tmp_path):
    path = write(tmp_path / "a", "aaaa\naaaa\n\nbbbb\n\n\n\n  cccc\n\tdd\n\neeee\n")
    assert read(path, document_bytes=12)[0] == ["aaaa\naaaa\n\nbbbb", "  cccc\n\tdd\n\neeee"]
    assert read(path, document_bytes=4)[0] == ["aaaa\naaaa", "bbbb", "  cccc\n\tdd", "eeee"]


def test_a_small_file_is_one_document_without_the_blank_lines_around_it(tmp_path):
    path = write(tmp_path / "a", "\n \n  one \n\n\ntwo  \n\t\n\n")
    assert read(path)[0] == ["  one \n\n\ntwo  "]


def test_a_text_without_blank_lines_is_cut_at_a_line_end(tmp_path):
    lines = [f"line {i:03d}" for i in range(100)]
    documents, _ = read(write(tmp_path / "a", "\n".join(lines)), document_bytes=20)
    assert "\n".join(documents).split("\n") == lines
    assert max(len(document) for document in documents) < 4 * 20 + 9
    assert min(len(document) for document in documents[:-1]) >= 4 * 20 - 9


def test_nothing_but_blank_lines_is_no_document(tmp_path):
    assert read(write(tmp_path / "a", "\n \n\t\n" * 5000)) == ([], {})


def test_windows_line_ends_become_newlines_and_still_part_paragraphs(tmp_path):
    path = write(tmp_path / "a", "one\r\ntwo\r\n\r\nthree\r\n")
    assert read(path, document_bytes=4)[0] == ["one\ntwo", "three"]


def test_invalid_utf8_is_replaced_and_counted(tmp_path):
    good = "a good line of text, and \ufffd as it stood in the file\n"
    path = write(tmp_path / "a", good.encode() + b"bad \xff\xfe and \xe4\xbd here\n")
    documents, counts = read(path)
    assert documents == [good + "bad \ufffd\ufffd and \ufffd here"]
    assert counts == {"invalid_characters": 3}


def test_each_json_line_is_a_document_kept_exactly(tmp_path):
    texts = ["one\n\ntwo\r\n", "  三 \x00 ", "x" * 9000]
    content = "\n".join(json.dumps({"id": 1, "body": text}) for text in texts)
    for name, data in (
        ("a.jsonl", content.encode()),
        ("b.NDJSON.gz", gzip.compress(content.encode())),
    ):
        assert read(write(tmp_path / name, data), text_field="body") == (texts, {})


def test_unusable_json_lines_are_counted(tmp_path):
    lines = ['{"text": "one"}', "{", '{"text": 3}', "[]", "[" * 99999, "", '{"text": " "}']
    lines += ['{"text": "a \\ud800 b \\ud83d\\ude00"}']
    documents, counts = read(write(tmp_path / "a.jsonl", "\n".join(lines)))
    assert documents == ["one", "a \ufffd b \U0001f600"]
    assert counts == {"malformed_lines": 4, "empty_documents": 1, "invalid_characters": 1}


@pytest.mark.parametrize(
    ("line", "came"),
    [('{"id": 1, "document": "x"}', "the fields id, document"), ("plain text", "plain text")],
)
def test_a_json_file_that_starts_wrong_is_refused(tmp_path, line, came):
    path = write(tmp_path / "a.jsonl", line + '\n{"text": "x"}\n')
    words = f"a.jsonl line 1: expected a JSON object with a text in 'text', got {came}. Name the"
    with pytest.raises(UserError, match=words):
        read(path)


def test_the_embedded_corpus_comes_whole_in_the_order_of_its_titles():
    documents, counts = read([], embedded=True)
    text = "\n".join(topics[title] for title in sorted(topics))
    assert [line for line in "\n".join(documents).split("\n") if line.strip()] == [
        line for line in text.split("\n") if line.strip()
    ]
    assert len(documents) > len(topics)
    assert counts == {}


def test_a_file_in_a_folder_is_cut_by_its_own_kind(tmp_path):
    write(tmp_path / "a.jsonl", '{"text": "json"}')
    write(tmp_path / "b.txt", '{"text": "plain"}')
    assert read([tmp_path])[0] == ["json", '{"text": "plain"}']
