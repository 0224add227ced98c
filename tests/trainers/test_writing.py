"""The writer beside the steps: order, errors and what is waited for."""

import threading

import pytest

from tfllm.trainers.writing import Writer


def test_pieces_are_written_in_order_in_another_thread_and_all_at_the_end():
    written = []
    with Writer() as writer:
        for piece in range(5):
            writer.add(lambda piece=piece: written.append((piece, threading.current_thread())))
    assert [piece for piece, _ in written] == list(range(5))
    assert {thread for _, thread in written} != {threading.current_thread()}


def test_adding_does_not_wait_for_the_piece_before():
    go_on = threading.Event()
    with Writer() as writer:
        writer.add(go_on.wait)
        writer.add(go_on.wait)
        writer.check()
        go_on.set()


def test_an_error_comes_up_and_nothing_is_written_after_it():
    go_on, written = threading.Event(), []

    def fail():
        go_on.wait()
        raise OSError("the disk is gone")

    def run():
        with Writer() as writer:
            writer.add(fail)
            writer.add(lambda: written.append(1))
            go_on.set()
            for look in (writer.wait, writer.check, lambda: writer.add(lambda: written.append(2))):
                with pytest.raises(OSError, match="the disk is gone"):
                    look()

    with pytest.raises(OSError, match="the disk is gone"):
        run()
    assert written == []


def test_another_error_is_not_hidden_by_one_of_the_writer():
    def run():
        with Writer() as writer:
            writer.add(lambda: 1 / 0)
            raise KeyError

    with pytest.raises(KeyError):
        run()
