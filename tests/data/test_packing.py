import itertools
import random

from tfllm.data.packing import Packer


def pack(documents, sequence_length):
    packer = Packer(sequence_length, pad_id=0)
    rows = [row for document in documents for row in packer.add(document)]
    return rows + list(packer.flush())


def test_documents_follow_each_other_and_go_on_in_the_next_row():
    rows = pack([[1, 2, 3], [4, 5, 6, 7, 8, 9]], sequence_length=4)
    assert [tuple(row)[:3] for row in rows] == [
        ([1, 2, 3, 4, 5], [1, 1, 1, 2, 2], [0, 1, 2, 0, 1]),
        ([5, 6, 7, 8, 9], [1, 1, 1, 1, 1], [0, 1, 2, 3, 4]),
    ]


def test_a_place_for_one_token_is_left_empty_because_it_predicts_nothing():
    rows = pack([[1, 2, 3, 4], [5, 6]], sequence_length=4)
    assert [tuple(row)[:3] for row in rows] == [
        ([1, 2, 3, 4, 0], [1, 1, 1, 1, 0], [0, 1, 2, 3, 0]),
        ([5, 6, 0, 0, 0], [1, 1, 0, 0, 0], [0, 1, 0, 0, 0]),
    ]


def test_every_token_but_the_first_of_a_document_is_predicted_exactly_once():
    numbers = itertools.count(1)
    lengths = random.Random(0)
    documents = [
        list(itertools.islice(numbers, lengths.choice([2, 3, 9, 17, 100]))) for _ in range(200)
    ]
    pairs = []
    for token_ids, segment_ids, *_ in pack(documents, sequence_length=16):
        assert len(token_ids) == 17
        steps = zip(token_ids, token_ids[1:], segment_ids, segment_ids[1:], strict=False)
        pairs += [(a, b) for a, b, s, t in steps if s == t > 0]
    assert sorted(pairs) == sorted(p for d in documents for p in itertools.pairwise(d))


def test_a_row_that_is_just_full_leaves_nothing_behind():
    assert len(pack([[1, 2, 3, 4, 5]], sequence_length=4)) == 1


def test_what_is_no_target_says_so_in_every_row():
    packer = Packer(3, pad_id=0)
    rows = [*packer.add([1, 2, 3, 4, 5, 6], [0, 0, 1, 0, 1, 1]), *packer.flush()]
    assert [(row.token_ids, row.target_weights) for row in rows] == [
        ([1, 2, 3, 4], [0, 0, 1, 0]),
        ([4, 5, 6, 0], [0, 1, 1, 0]),
    ]


def test_a_document_kept_whole_begins_a_row_where_the_rest_of_one_is_too_short():
    packer = Packer(4, pad_id=0, whole=True)
    documents = [[1, 2, 3], [4, 5, 6], [7, 8], [1, 2, 3, 4, 5, 6]]
    rows = [row for document in documents for row in packer.add(document)]
    assert [row.token_ids for row in [*rows, *packer.flush()]] == [
        [1, 2, 3, 0, 0],
        [4, 5, 6, 7, 8],
        [1, 2, 3, 4, 5],
        [5, 6, 0, 0, 0],
    ]
