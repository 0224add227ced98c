"""Finding answers: windows, spans, words, training."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfllm.errors import UserError
from tfllm.models import SpanQA
from tfllm.models.encoder_inputs import Parts
from tfllm.models.span_qa_text import read, span_plan
from tfllm.models.span_windows import Plan, Spans, best_spans, count_windows, whole_words, windows

CONTEXT = "the cat sat in paris, a dog lives in berlin"
LONG = "one two three four five " * 6 + CONTEXT


@pytest.fixture(scope="module")
def taught(new_encoder):
    """A model that knows where the dog is; tests do not change it."""
    model = new_encoder(SpanQA, backbone={"has_pooler": False, "dropout": 0.0})
    model.compile(keras.optimizers.Adam(5e-3))
    contexts = [CONTEXT, "a dog lives in berlin, the cat sat in paris", LONG[:80], "one two three"]
    y = [[max(c.find("berlin"), 0), c.find("berlin") + len("berlin")] for c in contexts]
    y = np.where(["berlin" in c for c in contexts], np.transpose(y), 0).T
    rows = (np.array(["where lives the dog"] * 4), np.array(contexts)), y
    model.fit(tf.data.Dataset.from_tensors(rows).repeat(80), verbose=0)
    return model


def cut(plan, asked, tokens):
    """The windows of one context as token numbers, as Hugging Face `tokenizers` cuts them."""
    room, found, start = plan.length - 3 - asked, [], 0
    while True:
        found.append(list(range(start, min(start + room, tokens))))
        if start + room >= tokens:
            return found
        start += room - plan.stride


def test_windows_overlap_by_the_stride_and_cover_everything():
    cases = [(a, t) for a in range(0, 7) for t in range(1, 40)]
    plan = Plan(length=20, stride=9)
    asked, tokens = (tf.constant(column) for column in zip(*cases, strict=True))
    counts = count_windows(plan, asked, tokens)
    row, start, size = (x.numpy() for x in windows(plan, asked, tokens, counts))
    found = [[] for _ in cases]
    for r, s, n in zip(row, start, size, strict=True):
        found[r].append(list(range(s, s + n)))
    assert found == [cut(plan, *case) for case in cases]


def by_hand(logits, asked, size, most):
    """The best span of one window, in tokens of the context, by trying all."""
    allowed = [0, *range(asked + 2, asked + 2 + size)]
    start, end = ({i: np.exp(x[i]) / np.exp(x[allowed]).sum() for i in allowed} for x in logits.T)
    best = max(
        (start[i] * end[j], -i, -j) for i in allowed[1:] for j in allowed[1:] if i <= j < i + most
    )
    return best[0], -best[1] - asked - 2, -best[2] - asked - 2, start[0] * end[0]


def test_the_best_span_is_that_of_all_spans_of_the_context():
    random = np.random.default_rng(0)
    logits = random.normal(size=(30, 12, 2)).astype("float32") * 2
    asked = random.integers(0, 4, 30).astype("int32")
    size = random.integers(1, 6, 30).astype("int32")
    starts = random.integers(0, 9, 30).astype("int32")
    found = best_spans(tf.constant(logits), asked, Parts(None, starts, size), 3)
    for i, row in enumerate(zip(*(x.numpy() for x in found), strict=True)):
        score, first, last, nothing = by_hand(logits[i], asked[i], size[i], 3)
        np.testing.assert_allclose(row[0], score, rtol=1e-4)
        np.testing.assert_allclose(row[3], nothing, rtol=1e-4)
        assert (row[1], row[2]) == (first + starts[i], last + starts[i])


def test_a_span_where_all_seems_impossible_is_one_of_the_context():
    logits = np.zeros((1, 8, 2), "float32")
    logits[0, 0] = 500  # that there is no answer
    found = best_spans(
        tf.constant(logits), tf.constant([1]), Parts(None, tf.constant([4]), tf.constant([3])), 15
    )
    assert (int(found.first[0]), int(found.last[0])) == (4, 4)
    np.testing.assert_allclose([found.score[0], found.nothing[0]], [0, 1], atol=1e-6)


def test_a_token_in_the_middle_of_a_word_stands_for_the_word():
    first, last = whole_words(tf.constant([False, True, True, False, False, True]))
    assert first.numpy().tolist() == [0, 0, 0, 3, 4, 4]
    assert last.numpy().tolist() == [2, 2, 2, 3, 5, 5]


@pytest.mark.parametrize(
    ("start", "size", "place", "part"),
    [(0, 3, 2, "cats"), (0, 3, 1, "cats"), (2, 1, 2, "s"), (0, 2, 1, "cat")],
)
def test_a_window_that_cuts_a_word_answers_with_its_part(taught, pieces, start, size, place, part):
    text = taught.text()
    context = "dog cats"  # dog, cat, ##s
    tokens = read(pieces, text.plan, tf.constant(["who"]), tf.constant([context]))
    window = Parts(*(tf.constant([x]) for x in (0, start, size)))
    span = Spans(None, tf.constant([place]), tf.constant([place]), None)
    begin, end = text._characters(tokens, window, span)
    assert context[int(begin[0]) : int(end[0])] == part


def test_fit_learns_where_the_answer_is(taught):
    found = taught.answer("where lives the dog", CONTEXT)
    assert found.score > 0.5
    assert found[:1] + found[2:] == ("berlin", CONTEXT.index("berlin"), len(CONTEXT), "")


def test_an_answer_far_behind_is_found_in_its_window(taught):
    found = taught.answer("where lives the dog", LONG)
    assert (found.answer, found.start) == ("berlin", LONG.index("berlin"))


def test_places_count_code_points_of_the_context(taught):
    context = "👩‍👩‍👧 你好 É " + CONTEXT
    found = taught.answer("where lives the dog", context)
    assert context[found.start : found.end] == found.answer == "berlin"


def test_a_row_s_answer_does_not_depend_on_its_neighbours(taught):
    questions = ["where lives the dog", "", "where sat the cat", "the " * 30, "where", "x" * 20_000]
    contexts = [LONG * 4, CONTEXT, CONTEXT, LONG, " \n", CONTEXT]
    found = taught.answer([*questions, "where"], [*contexts, "a " * 40_000])
    assert [answer.error for answer in found] == [
        "",
        "the question is empty",
        "",
        "",
        "the context is empty",
        "the question is too long: its first 8704 bytes hold fewer tokens than the model takes",
        "the context is too long: above 24576 bytes",
    ]
    for i in (0, 2, 3):
        alone = taught.answer(questions[i], contexts[i])
        assert (alone.answer, alone.start, alone.end) == found[i][:1] + found[i][2:4]
        np.testing.assert_allclose(alone.score, found[i].score, atol=1e-6)
    assert found[1] == ("", 0.0, 0, 0, "the question is empty")
    assert taught.answer([], []) == []


def test_a_context_of_too_many_windows_is_an_error_of_its_row(taught):
    (found,) = taught.answer(["where " * 8], ["a " * 4_000])
    assert found.error == "the context is too long: it has 3988 windows, the model reads 128"


def test_there_may_be_no_answer_where_that_is_wanted(taught):
    question, context = tf.constant(["where lives the dog"]), tf.constant([CONTEXT])
    text = taught.text(handle_impossible_answer=True)
    assert text.answer(question, context)["answer"].numpy() == [b"berlin"]
    kernel = taught.head.kernel.numpy()
    first = taught.backbone(taught.preprocessor((question, context), y=None))["sequence_output"][
        0, 0
    ]
    try:
        taught.head.kernel.assign(10 * np.tile(first[:, None], 2))  # all that the first token is
        found = text.answer(question, context)
        assert found["answer"].numpy() == [b""]
        assert (found["start"].numpy(), found["end"].numpy()) == ([0], [0])
        assert found["score"].numpy() > 0.5
        plain = taught.text().answer(question, context)
        assert plain["answer"].numpy() != [b""]
    finally:
        taught.head.kernel.assign(kernel)


def test_an_answer_has_so_many_tokens_at_most(taught):
    question, context = tf.constant(["where sat the cat"]), tf.constant([CONTEXT])
    found = taught.text(max_answer_len=1).answer(question, context)
    assert b" " not in found["answer"].numpy()[0]


def test_words_are_parted_where_that_is_wanted(new_encoder):
    model = new_encoder(SpanQA, backbone={"has_pooler": False})
    context, question = tf.constant(["cat cats sitting"]), tf.constant(["who"])
    whole = model.text(max_answer_len=1).answer(question, context)["answer"].numpy()[0]
    assert whole in (b"cat", b"cats", b"sitting")
    parts = model.text(max_answer_len=1, align_to_words=False)
    assert len(parts.answer(question, context)["answer"].numpy()[0]) <= len(whole)


def targets(model, question, context, y):
    x, places, _ = keras.utils.unpack_x_y_sample_weight(
        model.preprocess_samples((np.array([question]), np.array([context])), np.array([y]))
    )
    return x["token_ids"].numpy()[0], places.numpy()[0].tolist()


def test_the_window_that_holds_the_answer_is_trained_on(taught, pieces):
    begin = LONG.index("dog")
    ids, (first, last) = targets(taught, "where", LONG, [begin, begin + 9])
    assert pieces.decode(ids[first : last + 1]) == "dog lives"
    assert pieces.decode(ids[:2]) == "where"
    ids, places = targets(taught, "where", LONG, [0, 0])
    assert places == [0, 0]
    assert pieces.decode(ids[3:6]) == "one two three"
    ids, places = targets(taught, "where", LONG, [0, len(LONG)])  # in no window
    assert places == [0, 0]


def test_two_replicas_train_as_one_device_does(train_on_one_and_on_two):
    rows = (np.array(["where", "who"] * 2), np.array([LONG, CONTEXT] * 2)), np.array([[0, 3]] * 4)
    dataset = tf.data.Dataset.from_tensors(rows).repeat(3)
    losses, weights = train_on_one_and_on_two(SpanQA, dataset, 0.1, backbone={"has_pooler": False})
    np.testing.assert_allclose(*losses, rtol=1e-5)
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_preset_answers_as_the_model_did(taught, tmp_path):
    taught.save_to_preset(tmp_path / "preset")
    again = SpanQA.from_preset(tmp_path / "preset")
    assert again.answer("where sat the cat", LONG) == taught.answer("where sat the cat", LONG)


def test_windows_are_as_long_as_the_model_and_the_options_allow():
    assert span_plan(512) == (384, 128)
    assert span_plan(100) == (100, 50)
    assert span_plan(512, max_seq_len=64, doc_stride=10) == (64, 10)
    with pytest.raises(UserError, match="Windows of 8 tokens that share 4 have no room for a que"):
        span_plan(8)
    with pytest.raises(UserError, match="Windows of 384 tokens that share -1 have no room"):
        span_plan(512, doc_stride=-1)


def test_an_answer_of_no_tokens_is_refused(taught):
    with pytest.raises(UserError, match="max_answer_len must be at least 1, got 0"):
        taught.text(max_answer_len=0)
