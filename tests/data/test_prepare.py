import gzip
import json
import os

import pytest
import sentencepiece
import tensorflow as tf

from tfllm import data
from tfllm.data import Records
from tfllm.errors import UserError

TEXT = "the cat sleeps under the old tree over a house\n"


def rows_of(folder, split):
    """(token_ids, segment_ids) of every row, in order."""
    paths = sorted(str(path) for path in folder.glob(f"{split}-*.tfrecord"))
    for record in tf.data.TFRecordDataset(paths):
        feature = tf.train.Example.FromString(record.numpy()).features.feature
        yield tuple(list(feature[n].int64_list.value) for n in ("token_ids", "segment_ids"))


def documents_of(folder, split, bos):
    """The packed documents put together again: a piece without bos goes on with the last one."""
    documents = []
    for token_ids, segment_ids in rows_of(folder, split):
        for segment in sorted(set(segment_ids) - {0}):
            piece = [t for t, s in zip(token_ids, segment_ids, strict=True) if s == segment]
            if piece[0] == bos:
                documents.append(piece)
            else:
                assert documents[-1][-1] == piece[0]
                documents[-1] += piece[1:]
    return documents


@pytest.fixture
def texts(tmp_path):
    """A folder with 60 distinct documents in a JSONL file."""
    folder = tmp_path / "texts"
    folder.mkdir()
    lines = [json.dumps({"text": f"{TEXT}number {i}"}) for i in range(60)]
    (folder / "a.jsonl").write_text("\n".join(lines))
    return folder


def test_every_document_is_in_the_rows_whole_and_once(corpus, prepared, tokenizer):
    records = Records(prepared)
    expected = list(data.read_documents(corpus, document_bytes=500))
    packed = {
        split: documents_of(prepared, split, tokenizer.bos_id) for split in ("train", "validation")
    }
    for split, documents in packed.items():
        assert all(d[-1] == tokenizer.eos_id for d in documents)
        assert sum(len(d) - 1 for d in documents) == records.num_targets(split)
        assert records.meta["splits"][split]["documents"] == len(documents)
        assert records.meta["splits"][split]["tokens"] == sum(len(d) - 2 for d in documents)
    decoded = {split: [tokenizer.decode(d) for d in packed[split]] for split in packed}
    assert sorted(decoded["train"] + decoded["validation"]) == sorted(expected)
    lines = (prepared / "validation.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [{"text": t} for t in decoded["validation"]]
    for split, documents in decoded.items():
        assert records.num_bytes(split) == sum(len(d.encode()) for d in documents)


def test_the_meta_file_says_what_was_made(prepared, tokenizer, corpus):
    meta = Records(prepared).meta
    train = meta["splits"]["train"]
    assert meta["sources"] == [corpus.name]
    assert meta["tokenizer"] == "SentencePieceTokenizer"
    assert meta["vocabulary_size"] == tokenizer.vocabulary_size()
    assert train["rows"] == sum(1 for _ in rows_of(prepared, "train"))
    assert train["packing_efficiency"] == round(train["targets"] / (train["rows"] * 32), 4) > 0.95
    assert sorted(os.listdir(prepared)) == [
        "meta.json",
        "tokenizer",
        "train-00000.tfrecord",
        "train.index",
        "validation-00000.tfrecord",
        "validation.index",
        "validation.jsonl",
    ]


def test_a_document_keeps_its_split_whatever_is_around_it(texts, tokenizer, tmp_path):
    def held_out(name):
        data.prepare(texts, tmp_path / name, tokenizer=tokenizer, validation_fraction=0.3)
        return (tmp_path / name / "validation.jsonl").read_text().splitlines()

    before = held_out("one")
    lines = [json.dumps({"text": f"{TEXT}another {i}"}) for i in range(60)]
    (texts / "0_first.jsonl").write_text("\n".join(lines))
    after = held_out("two")
    assert [line for line in after if "number" in line] == before
    assert 5 < len(before) < 40


def test_a_document_that_occurred_before_is_dropped_and_counted(texts, tokenizer, tmp_path):
    first = data.prepare(texts, tmp_path / "one", tokenizer=tokenizer)
    content = (texts / "a.jsonl").read_bytes()
    (texts / "b.jsonl.gz").write_bytes(gzip.compress(content + b'\n{"text": "new"}'))
    second = data.prepare(texts, tmp_path / "two", tokenizer=tokenizer)
    assert second["skipped"] == {"duplicate_documents": 60}
    assert sum(s["documents"] for s in second["splits"].values()) == 61
    assert sum(s["documents"] for s in first["splits"].values()) == 60


def test_the_tokenizer_is_trained_on_the_training_split_alone(tmp_path):
    held_out = {}
    lines = [f"{TEXT}{i} {chr(0x4E00 + i)}" for i in range(200)]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps({"text": line}) for line in lines))
    data.prepare(path, tmp_path / "out", vocabulary_size=700, validation_fraction=0.3)
    tokenizer = Records(tmp_path / "out").tokenizer
    pieces = {tokenizer.id_to_token(i) for i in range(tokenizer.vocabulary_size())}
    validation = (tmp_path / "out" / "validation.jsonl").read_text()
    for line in lines:
        held_out.setdefault(line[-1] in validation, []).append(any(line[-1] in p for p in pieces))
    assert not any(held_out[True])
    assert any(held_out[False])


def test_one_document_is_enough(tmp_path):
    (tmp_path / "a.txt").write_text(TEXT)
    data.prepare(tmp_path / "a.txt", tmp_path / "out", vocabulary_size=300, validation_fraction=0)
    records = Records(tmp_path / "out")
    (token_ids, _), *_ = rows_of(tmp_path / "out", "train")
    assert records.num_rows("train") == 1
    assert records.tokenizer.decode(token_ids) == TEXT.rstrip()


def test_a_tokenizer_can_be_given_by_its_path(texts, tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer")
    for name, given in (("one", tokenizer), ("two", tmp_path / "tokenizer")):
        data.prepare(texts, tmp_path / name, tokenizer=given)
    one, two = (list(rows_of(tmp_path / name, "train")) for name in ("one", "two"))
    assert one == two


def test_what_was_left_out_is_counted_in_the_meta_file(texts, tokenizer, tmp_path):
    (texts / "b.bin").write_bytes(b"\0" * 100)
    (texts / "c.txt.gz").write_bytes(gzip.compress(os.urandom(999).hex().encode())[:-30])
    meta = data.prepare(texts, tmp_path / "out", tokenizer=tokenizer)
    assert meta["skipped"] == {"binary_files": 1, "damaged_files": 1}


def test_two_passes_log_what_was_left_out_once(texts, tmp_path, caplog):
    (texts / "b.bin").write_bytes(b"\0" * 100)
    data.prepare(texts, tmp_path / "out", vocabulary_size=300)
    assert sum("b.bin is not text" in message for message in caplog.messages) == 1


def test_the_embedded_corpus_is_prepared_without_a_file(tokenizer, tmp_path):
    meta = data.prepare([], tmp_path / "out", embedded=True, tokenizer=tokenizer)
    assert meta["sources"] == ["pydoc_data.topics"]
    assert meta["splits"]["train"]["bytes"] > 300_000
    assert meta["splits"]["validation"]["rows"] > 0


def test_without_held_out_documents_only_validation_batches_are_refused(texts, tokenizer, tmp_path):
    data.prepare(texts, tmp_path / "out", tokenizer=tokenizer, validation_fraction=0)
    records = Records(tmp_path / "out")
    assert records.num_rows("validation") == records.num_targets("validation") == 0
    assert len(list(records.batches("train", 2, num_steps=1))) == 1
    with pytest.raises(UserError, match="out has no validation rows: prepare more text"):
        records.batches("validation", 2)


def test_a_corpus_that_is_all_held_out_is_refused(tokenizer, tmp_path):
    (tmp_path / "a.txt").write_text(TEXT)
    for given in (tokenizer, None):
        with pytest.raises(UserError, match="all 1 documents fell to validation. Add text, or"):
            data.prepare(
                tmp_path / "a.txt", tmp_path / "out", tokenizer=given, validation_fraction=0.9999
            )
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_corpus_without_text_is_refused_with_what_was_left_out(tokenizer, tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "empty.txt").write_text("\n\n")
    with pytest.raises(UserError, match="No text in the sources. Left out: nothing, they are emp"):
        data.prepare(folder, tmp_path / "out")
    (folder / "image.txt").write_bytes(b"\x89PNG\0")
    with pytest.raises(UserError, match="Left out: 1 binary files: .*image.txt is not text"):
        data.prepare(folder, tmp_path / "out", tokenizer=tokenizer)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sequence_length": 7}, "sequence_length must be at least 8, got 7"),
        ({"document_bytes": 0}, "document_bytes must be at least 1, got 0"),
        ({"validation_fraction": 1.0}, r"validation_fraction must be in \[0, 1\), got 1.0"),
        ({"sources": []}, "name files, folders or patterns, or pass embedded=True"),
    ],
)
def test_options_out_of_range_are_refused(corpus, tmp_path, options, words):
    with pytest.raises(UserError, match=words):
        data.prepare(**{"sources": corpus, "out": tmp_path / "out", **options})
    assert os.listdir(tmp_path) == []


def foreign_model(path, **options):
    """A SentencePiece model as others train it: by default it has no piece for padding."""
    with open(path, "wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([TEXT]),
            model_writer=file,
            vocab_size=30,
            hard_vocab_limit=False,
            minloglevel=2,
            **options,
        )
    return path


def test_a_source_whose_name_is_no_utf8_is_named_as_well_as_json_can(tokenizer, tmp_path):
    name = os.fsencode(tmp_path) + b"/caf\xe9.txt"
    with open(name, "w", encoding="utf-8") as file:
        file.write(TEXT)
    data.prepare(os.fsdecode(name), tmp_path / "out", tokenizer=tokenizer)
    assert Records(tmp_path / "out").meta["sources"] == ["caf\ufffd.txt"]


def test_a_tokenizer_without_an_end_of_document_is_refused(texts, tmp_path):
    path = foreign_model(tmp_path / "no_eos.model", eos_id=-1)
    with pytest.raises(UserError, match="The tokenizer has no eos_id: documents need a token"):
        data.prepare(texts, tmp_path / "out", tokenizer=path)


def test_a_tokenizer_without_padding_pads_with_a_token_it_has(texts, tmp_path):
    path = foreign_model(tmp_path / "no_pad.model")
    data.prepare(texts, tmp_path / "out", tokenizer=path)
    tokenizer = Records(tmp_path / "out").tokenizer
    assert tokenizer.pad_id == -1
    *_, (token_ids, segment_ids) = rows_of(tmp_path / "out", "train")
    padding = {t for t, s in zip(token_ids, segment_ids, strict=True) if s == 0}
    assert padding == {tokenizer.eos_id}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("wordpiece", "WordPieceTokenizer"), ("byte_bpe", "BytePairTokenizer")],
)
def test_a_tokenizer_of_each_kind_can_be_trained(texts, tmp_path, kind, expected):
    meta = data.prepare(texts, tmp_path / "out", tokenizer=kind, vocabulary_size=400)
    assert meta["tokenizer"] == expected
    assert meta["vocabulary_size"] <= 400
    found = Records(tmp_path / "out").tokenizer
    assert type(found).__name__ == expected
    ids, _ = next(rows_of(tmp_path / "out", "train"))
    assert ids[0] == found.bos_id
