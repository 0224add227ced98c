"""Tables to rows: what is held out, what is cut, and where a row that does not fit stands."""

import json

import pytest

from tfllm.data import Records, prepare
from tfllm.data.layouts.examples import span_of
from tfllm.errors import UserError

PAIRS = [{"source": f"the cat number {i}", "target": f"chat {i}"} for i in range(40)]
SMALL = {"vocabulary_size": 300, "sequence_length": 32}


def table(folder, rows, name="rows.jsonl"):
    path = folder / name
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_pairs_may_have_nothing_held_out(tmp_path):
    meta = prepare(
        table(tmp_path, PAIRS), tmp_path / "out", task="seq2seq_lm", validation_fraction=0, **SMALL
    )
    documents = {split: found["documents"] for split, found in meta["splits"].items()}
    assert documents == {"train": 40, "validation": 0}


def test_what_a_file_holds_out_is_not_trained_on(tmp_path):
    other = {**PAIRS[0], "target": "another translation"}
    held_out = table(tmp_path, [*PAIRS[1:4], {"source": "new", "target": "neu"}], "held_out.jsonl")
    meta = prepare(
        table(tmp_path, [*PAIRS, other, {**PAIRS[1], "target": "another one"}]),
        tmp_path / "out",
        task="seq2seq_lm",
        validation=held_out,
        **SMALL,
    )
    documents = {split: found["documents"] for split, found in meta["splits"].items()}
    assert documents == {"train": 38, "validation": 4}
    assert meta["skipped"] == {"held_out_rows": 4}
    with pytest.raises(UserError, match="all that the sources have is held out"):
        prepare(held_out, tmp_path / "2", task="seq2seq_lm", validation=held_out, **SMALL)


def test_rows_without_a_target_within_the_length_are_no_split_that_fell_to_validation(tmp_path):
    rows = [{"prompt": "many words " * 50 + str(i), "completion": "x"} for i in range(3)]
    with pytest.raises(UserError, match="none of 3 items has something to learn within the sequen"):
        prepare(
            table(tmp_path, rows),
            tmp_path / "out",
            task="completion",
            validation_fraction=0,
            **SMALL,
        )


def test_columns_are_not_of_texts(tmp_path):
    for options in ({"columns": {"text": "2"}}, {"header": True}):
        with pytest.raises(UserError, match="Columns and headers are of tables, and causal_lm rea"):
            prepare(table(tmp_path, [{"text": "a"}]), tmp_path / "out", **options)


def test_an_answer_may_be_written_in_each_way_of_squad():
    row = {"question": "who", "context": "the cat sleeps"}
    for answers, expected in [
        ({"text": ["cat"], "answer_start": [4]}, (4, 7)),
        ([{"text": "cat", "answer_start": 4}], (4, 7)),
        ({"text": [], "answer_start": []}, (0, 0)),
        ([], (0, 0)),
    ]:
        assert span_of({**row, "answers": answers}) == expected


@pytest.mark.parametrize(
    ("task", "row", "words"),
    [
        ("span_qa", {"question": "q", "context": "a cat", "answer": "cat", "start": 1}, "does not"),
        ("span_qa", {"question": "q", "context": "a cat", "answers": {}}, "expected answers as"),
        ("text_embedder", {"text": "a", "text_pair": "b"}, "Either every pair has a score"),
        ("chat", {"messages": [{"role": "tool", "content": "x"}] * 2}, "The conversation"),
    ],
)
def test_a_row_that_a_task_refuses_is_named_with_file_and_line(tmp_path, task, row, words):
    fine = {
        "span_qa": {"question": "q", "context": "a cat", "answer": "cat"},
        "text_embedder": {"text": "c", "text_pair": "d", "score": 1},
        "chat": {"messages": [{"role": "user", "content": "x"}]},
    }[task]
    options = {"validation_fraction": 0, **SMALL}
    if task == "chat":
        options["tokenizer"] = _strict_tokenizer()
    with pytest.raises(UserError, match=f"rows.jsonl line 2: .*{words}"):
        prepare(table(tmp_path, [fine, row]), tmp_path / "out", task=task, **options)


def _strict_tokenizer():
    from tfllm.chat import ChatTemplate
    from tfllm.tokenizers import train_sentencepiece

    made = train_sentencepiece(["a cat sleeps"] * 9, vocabulary_size=300)
    made.chat_template = ChatTemplate(
        "{% if messages[0].role == 'tool' %}{{ raise_exception('no') }}{% endif %}"
        "{% for m in messages %}{{ m.content }}\n{% endfor %}"
    )
    return made


def test_lone_surrogates_of_conversations_and_cells_with_json_are_read(tmp_path):
    talk = [{"role": "user", "content": "a\ud800"}, {"role": "assistant", "content": "b"}]
    prepare(
        table(tmp_path, [{"messages": talk}]),
        tmp_path / "out",
        task="chat",
        tokenizer=_strict_tokenizer(),
        validation_fraction=0,
        sequence_length=64,
    )
    cell = json.dumps(talk).replace('"', '""')
    (tmp_path / "rows.csv").write_text(f'messages\n"{cell}"\n')
    prepare(
        tmp_path / "rows.csv",
        tmp_path / "of_csv",
        task="chat",
        tokenizer=_strict_tokenizer(),
        validation_fraction=0,
        sequence_length=64,
    )
    read = [
        next(iter(Records(tmp_path / name).batches("train", 1, num_steps=1)))[0]["token_ids"]
        for name in ("out", "of_csv")
    ]
    assert (read[0] == read[1]).numpy().all()
