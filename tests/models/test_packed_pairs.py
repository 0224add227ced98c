"""Several pairs of source and target in a row: none knows of its neighbours."""

import keras
import numpy as np
import pytest

from tfllm.models import LSTMSeq2SeqBackbone, MarianBackbone, T5Backbone

VOCABULARY = 40
SHARED = {"vocabulary_size": VOCABULARY, "num_layers": 2, "hidden_dim": 16}
TRANSFORMER = {"num_heads": 2, "intermediate_dim": 24, "num_decoder_layers": 1}
KINDS = {
    "marian": (MarianBackbone, TRANSFORMER),
    # Few buckets, so that most distances share one.
    "t5": (T5Backbone, TRANSFORMER | {"num_buckets": 6, "max_distance": 5}),
    "lstm": (LSTMSeq2SeqBackbone, {"num_decoder_layers": 3}),
}
# Tokens of source and target of each pair of a row.
PACKED = [[(5, 4), (3, 6), (7, 1)], [(1, 1), (14, 13)], [(9, 9)]]
WIDTHS = 18, 15


@pytest.fixture(scope="module", params=KINDS)
def backbone(request):
    """Each of them, with large weights, so that everything matters; tests do not change it."""
    keras.utils.set_random_seed(0)
    kind, sizes = KINDS[request.param]
    made = kind(**SHARED, **sizes)
    random = np.random.default_rng(0)
    for variable in made.trainable_variables:
        variable.assign(variable + random.normal(size=variable.shape) * 0.3)
    return made


def batch(rows, widths=WIDTHS, numbers=None):
    """Inputs for rows of pairs of (source, target) ids, their numbered from 1 or as given."""
    made = {}
    for side, name in enumerate(("encoder", "decoder")):
        ids, pairs = (np.zeros((len(rows), widths[side]), "int32") for _ in range(2))
        for row, content in enumerate(rows):
            at = 0
            for number, pair in enumerate(content):
                here = slice(at, at + len(pair[side]))
                ids[row, here] = pair[side]
                pairs[row, here] = number + 1 if numbers is None else numbers[row][number]
                at = here.stop
        made |= {f"{name}_token_ids": ids, f"{name}_padding_mask": pairs}
    return made


def new_pairs(sizes=PACKED, seed=0):
    random = np.random.default_rng(seed)
    return [
        [tuple(random.integers(1, VOCABULARY, size) for size in pair) for pair in row]
        for row in sizes
    ]


def logits(backbone, inputs):
    return backbone.logits(backbone(inputs)["decoder_sequence_output"]).numpy()


def test_a_packed_row_gives_what_its_pairs_give_alone(backbone):
    rows = new_pairs()
    found = logits(backbone, batch(rows))
    for row, content in enumerate(rows):
        at = 0
        for source, target in content:
            alone = logits(backbone, batch([[(source, target)]], (len(source), len(target))))
            np.testing.assert_allclose(found[row, at : at + len(target)], alone[0], atol=1e-5)
            at += len(target)


def test_what_stands_in_another_pair_or_in_the_padding_changes_nothing(backbone):
    rows, others = new_pairs(), new_pairs(seed=1)
    mixed = [[*other[:1], *row[1:]] for row, other in zip(rows, others, strict=True)]
    ones, twos = batch(rows), batch(mixed)
    for name in ("encoder", "decoder"):
        padding = twos[f"{name}_padding_mask"] == 0
        twos[f"{name}_token_ids"] = np.where(padding, 7, twos[f"{name}_token_ids"])
    later = ones["decoder_padding_mask"] > 1
    np.testing.assert_array_equal(logits(backbone, ones)[later], logits(backbone, twos)[later])


def test_within_a_pair_everything_matters(backbone):
    inputs = batch(new_pairs())
    before, second = logits(backbone, inputs), inputs["decoder_padding_mask"] == 2
    for side in ("encoder", "decoder"):
        ids = inputs[f"{side}_token_ids"].copy()
        for row in (0, 1):
            place = np.argmax(inputs[f"{side}_padding_mask"][row] == 2)  # where pair 2 begins
            ids[row, place] = 1 + ids[row, place] % (VOCABULARY - 1)
        moved = np.abs(logits(backbone, inputs | {f"{side}_token_ids": ids}) - before).max(-1)
        assert moved[second].min() > 1e-4


def test_rows_of_one_pair_are_what_they_are_without_numbers(backbone):
    inputs = batch([row[:1] for row in new_pairs()])
    hidden = backbone(inputs)
    reading = backbone.encode(inputs["encoder_token_ids"], inputs["encoder_padding_mask"])
    present = inputs["encoder_padding_mask"] == 1
    np.testing.assert_allclose(
        hidden["encoder_sequence_output"].numpy()[present], reading.numpy()[present], atol=1e-6
    )


def test_the_numbers_of_pairs_may_leave_gaps(backbone):
    rows = new_pairs()
    plain = logits(backbone, batch(rows))
    found = logits(backbone, batch(rows, numbers=[[3, 5, 9], [4, 7], [5]]))
    present = batch(rows)["decoder_padding_mask"] > 0
    np.testing.assert_allclose(found[present], plain[present], atol=1e-6)
