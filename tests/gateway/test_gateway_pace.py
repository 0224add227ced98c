"""How much is asked of a server in one call."""

from tfllm.gateway.pace import READ_AT_ONCE, Pace


def pace_of(decode_s: float, read_s: float) -> Pace:
    pace = Pace()
    for _ in range(60):
        pace.took(2 * decode_s, steps=2)
        pace.took_to_read(64 * read_s, tokens=64)
    return pace


def test_prompts_are_read_for_no_longer_than_a_step_and_a_half_beside_texts_that_run():
    pace = pace_of(decode_s=0.03, read_s=0.0005)
    tokens = pace.tokens_to_read(False, num_coming=1, num_running=4)
    assert tokens == 64
    assert tokens * 0.0005 <= 1.5 * 0.03
    slow = pace_of(decode_s=0.03, read_s=0.005)
    assert slow.tokens_to_read(False, num_coming=1, num_running=4) == READ_AT_ONCE


def test_more_is_read_when_more_wait_than_run():
    pace = pace_of(decode_s=0.03, read_s=0.0005)
    few, many = (pace.tokens_to_read(False, coming, num_running=2) for coming in (2, 3))
    assert few < many < pace.tokens_to_read(True, 3, num_running=2)
    assert many < pace.tokens_to_read(False, 3, num_running=0)


def test_calls_are_longer_when_all_slots_are_taken_and_shorter_while_prompts_are_read():
    pace = Pace()
    assert [pace.tokens_to_write(False, *numbers) for numbers in ((0, 1), (0, 2), (1, 2))] == [
        1,
        2,
        1,
    ]
    assert pace.tokens_to_write(True, 0, 8) > pace.tokens_to_write(True, 1, 8) > 2


def test_one_slow_call_does_not_move_the_mean_far():
    pace = pace_of(decode_s=0.03, read_s=0.0005)
    pace.took(30.0, steps=1)
    assert pace.decode_s < 0.06
