"""Server-side batching: what merges, what is refused, who waits for whom."""

import contextlib
import threading
import time
from concurrent import futures

import numpy as np
import pytest

from tfllm.serving import Client, Code, ServedModel, Server, ServingError
from tfllm.serving.batcher import Batcher
from tfllm.serving.batching_parameters import BatchingParameters
from tfllm.serving.callers import RestCaller, answering

HOUR = 3_600_000_000  # microseconds


class Calls:
    """What a batcher runs: arithmetic on `x:0`. Keeps what it was asked, and can be held."""

    def __init__(self):
        self.asked = []
        self.running = threading.Semaphore(0)
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def __call__(self, ends_at, feeds, fetches):
        self.ends_at = ends_at
        self.asked.append(({name: array.tolist() for name, array in feeds}, fetches))
        self.running.release()
        assert self.may_go_on.wait(120)
        x = dict(feeds)["x:0"]
        if x.dtype == np.float64:
            raise ServingError(Code.INVALID_ARGUMENT, "Expects arg[0] to be int64")
        values = {"twice:0": 2 * x, "next:0": x + 1, "total:0": x.sum(), "fewer:0": x[1:]}
        return [values[name] for name in fetches]

    @property
    def rows(self):
        return [feeds["x:0"] for feeds, _ in self.asked]


class Asking:
    """A batcher over `Calls` and threads that ask it."""

    def __init__(self, **parameters):
        self.calls, self.seen = Calls(), []
        parameters = BatchingParameters(**{"num_batch_threads": 1, **parameters})
        self.batcher = Batcher(self.calls, parameters, self.seen.append)
        self._threads = futures.ThreadPoolExecutor(20)

    def __call__(self, x, fetches=("twice:0",), timeout_s=None, **others):
        feeds = [("x:0", np.array(x)), *((f"{name}:0", np.array(a)) for name, a in others.items())]
        return self._threads.submit(self._run, feeds, fetches, timeout_s)

    def _run(self, feeds, fetches, timeout_s):
        with contextlib.nullcontext() if timeout_s is None else answering(RestCaller(timeout_s)):
            return self.batcher.run(feeds, fetches)

    @contextlib.contextmanager
    def while_one_runs(self):
        """Holds the only thread with a request for row 0."""
        self.calls.may_go_on.clear()
        first = self([0])
        assert self.calls.running.acquire(timeout=120)
        yield
        self.calls.may_go_on.set()
        assert first.result(120)[0].tolist() == [0]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.calls.may_go_on.set()
        self.batcher.close()
        self._threads.shutdown()


def outcome(answer):
    """The first output as a list, or the error's code and message."""
    try:
        return answer.result(120)[0].tolist()
    except ServingError as error:
        return error.code, error.message


def test_requests_run_in_one_call_and_each_gets_its_rows_back():
    with Asking(max_batch_size=4, batch_timeout_micros=HOUR) as ask:
        answers = [ask([1]), ask([2, 3]), ask([4])]
        assert [outcome(answer) for answer in answers] == [[2], [4, 6], [8]]
    assert [sorted(rows) for rows in ask.calls.rows] == [[1, 2, 3, 4]]


def test_requests_for_the_same_outputs_in_another_order_share_a_call():
    with Asking(max_batch_size=2, batch_timeout_micros=HOUR) as ask:
        answers = [ask([1], ["next:0", "twice:0", "next:0"]), ask([5], ["twice:0", "next:0"])]
        outputs = [[a.tolist() for a in answer.result(120)] for answer in answers]
    assert outputs == [[[2], [2], [2]], [[10], [6]]]
    assert [fetches for _, fetches in ask.calls.asked] == [("next:0", "twice:0")]


def test_a_batch_that_is_not_full_runs_when_its_time_is_over():
    with Asking(max_batch_size=100, batch_timeout_micros=1000) as ask:
        assert ask([1]).result(120)[0].tolist() == [2]


def test_an_idle_thread_takes_a_request_at_once_by_default():
    with Asking() as ask:
        assert ask([1]).result(120)[0].tolist() == [2]


def test_what_does_not_fit_into_a_batch_starts_the_next_one():
    with Asking(max_batch_size=3, batch_timeout_micros=HOUR) as ask:
        answers = [ask([1, 2]), ask([3, 4])]
        first = futures.wait(answers, 20, futures.FIRST_COMPLETED).done
        ask.batcher.flush()
        assert [outcome(answer) for answer in answers] == [[2, 4], [6, 8]]
    assert len(first) == 1
    assert sorted(ask.calls.rows) == [[1, 2], [3, 4]]


def test_a_batch_is_filled_up_to_an_allowed_size_with_the_last_requests_first_row():
    with Asking(max_batch_size=8, allowed_batch_sizes=(4, 8)) as ask:
        assert ask([5, 6]).result(120)[0].tolist() == [10, 12]
        assert ask([1, 2, 3, 4, 5]).result(120)[0].tolist() == [2, 4, 6, 8, 10]
    assert ask.calls.rows == [[5, 6, 5, 5], [1, 2, 3, 4, 5, 1, 1, 1]]
    assert [(batch.task_rows, batch.padding) for batch in ask.seen] == [([2], 2), ([5], 3)]
    assert all(seconds >= 0 for batch in ask.seen for seconds in batch.queue_s)


@pytest.mark.parametrize(
    ("x", "others", "words"),
    [
        (1, {}, "Batching Run() input tensors must have at least one dimension"),
        ([1, 2], {"t": 1.0}, "Batching Run() input tensors must have at least one dimension"),
        ([1, 2], {"t": [1.0]}, "Batching Run() input tensors must have equal 0th-dimension size"),
        ([0] * 9, {}, "Task size 9 is larger than maximum input batch size 8"),
    ],
)
def test_what_is_not_rows_or_too_many_is_refused(x, others, words):
    with Asking(max_batch_size=8) as ask:
        assert outcome(ask(x, **others)) == (Code.INVALID_ARGUMENT, words)
    assert ask.calls.asked == []


def test_inputs_that_differ_beyond_the_first_dimension_fail_together():
    with Asking(max_batch_size=2, batch_timeout_micros=HOUR) as ask:
        outcomes = [outcome(answer) for answer in [ask([[1, 2]]), ask([[1, 2, 3]])]]
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][0] == Code.FAILED_PRECONDITION
    assert outcomes[0][1].startswith(
        "Tensors with name 'x:0' from different tasks have different shapes and padding is turned "
        "off. Set pad_variable_length_inputs to true, or "
    )


def test_padding_makes_inputs_equally_long_with_their_first_element():
    with Asking(
        max_batch_size=2, batch_timeout_micros=HOUR, pad_variable_length_inputs=True
    ) as ask:
        answers = [ask([[1, 2, 3]]), ask([[4]])]
        assert [outcome(answer) for answer in answers] == [[[2, 4, 6]], [[8, 8, 8]]]
    assert sorted(ask.calls.rows[0]) == [[1, 2, 3], [4, 4, 4]]


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        ([[]], [[1]], "Got empty tensor in batch of non-empty tensors."),
        ([1], [[1]], "Tensors with name 'x:0' from different tasks have different ranks."),
        (
            np.zeros([1, 1, 2**14], np.int64),
            np.zeros([1, 2**14, 1], np.int64),
            "Tensors with name 'x:0' would be padded to 4294967296 bytes.",
        ),
    ],
)
def test_what_cannot_be_padded_is_refused(one, other, words):
    with Asking(
        max_batch_size=2, batch_timeout_micros=HOUR, pad_variable_length_inputs=True
    ) as ask:
        answers = [ask(np.array(one, np.int64)), ask(other)]
        expected = (Code.INVALID_ARGUMENT, words)
        assert [outcome(answer) for answer in answers] == [expected, expected]


@pytest.mark.parametrize(
    ("fetched", "words"),
    [
        ("total:0", "Batched output tensor has 0 dimensions"),
        ("fewer:0", "Batched output tensor's 0th dimension does not equal the sum of the 0th "),
    ],
)
def test_outputs_that_are_not_rows_are_refused(fetched, words):
    with Asking() as ask:
        code, message = outcome(ask([1, 2], [fetched]))
    assert code == Code.FAILED_PRECONDITION
    assert message.startswith(words)


def test_a_full_queue_refuses_at_once_and_what_waits_is_answered():
    with Asking(max_batch_size=1, max_enqueued_batches=4) as ask:
        with ask.while_one_runs():
            answers = [ask([row]) for row in (1, 2, 3, 4, 5)]
            refused = futures.wait(answers, 20, futures.FIRST_COMPLETED).done
            assert [outcome(answer) for answer in refused] == [
                (
                    Code.UNAVAILABLE,
                    "The batch scheduling queue to which this task was submitted is full; "
                    "currently 4 batches enqueued and max_enqueued_batches is 4",
                )
            ]
        answered = [answer.result(120)[0][0] for answer in answers if answer not in refused]
        assert len(answered) == 4
    assert sorted(2 * rows[0] for rows in ask.calls.rows) == sorted([0, *answered])


def test_a_large_request_is_cut_over_several_batches_if_that_is_allowed():
    with Asking(
        max_batch_size=8,
        enable_large_batch_splitting=True,
        max_execution_batch_size=3,
        allowed_batch_sizes=(1, 3),
    ) as ask:
        assert outcome(ask([1, 2, 3, 4, 5, 6, 7, 8])) == [2, 4, 6, 8, 10, 12, 14, 16]
    assert ask.calls.rows == [[1, 2, 3], [4, 5, 6], [7, 8, 7]]


def test_a_request_that_would_be_cut_over_too_many_batches_is_refused():
    with Asking(
        max_batch_size=8,
        enable_large_batch_splitting=True,
        max_execution_batch_size=3,
        max_enqueued_batches=2,
    ) as ask:
        assert outcome(ask([1, 2, 3, 4, 5, 6, 7])) == (
            Code.UNAVAILABLE,
            "The batch scheduling queue to which this task was submitted is full; task size is 7 "
            "but scheduling capacity is only 6 (num_enqueued_batches=1, max_enqueued_batches=2, "
            "open_batch_size=0, max_execution_batch_size=3)",
        )


def test_a_request_of_no_rows_runs_by_itself():
    with Asking(max_batch_size=2, batch_timeout_micros=HOUR) as ask:
        assert outcome(ask(np.zeros([0], np.int64))) == []


def test_a_wrong_dtype_fails_nobody_elses_request():
    with Asking(max_batch_size=2, batch_timeout_micros=HOUR) as ask:
        wrong = [ask([1.0]), ask([2.0])]
        right = [ask([1]), ask([2])]
        assert [outcome(answer) for answer in right] == [[2], [4]]
        assert [outcome(answer)[0] for answer in wrong] == [Code.INVALID_ARGUMENT] * 2


def test_queues_are_served_in_turns():
    with Asking(max_batch_size=1, max_enqueued_batches=3) as ask:
        with ask.while_one_runs():
            for name in ("twice:0", "next:0"):
                # One of four is refused, so three wait.
                answers = [ask([row], [name]) for row in (1, 2, 3, 4)]
                assert futures.wait(answers, 20, futures.FIRST_COMPLETED).done
        for _ in range(6):
            assert ask.calls.running.acquire(timeout=120)
    fetched = [fetches[0] for _, fetches in ask.calls.asked[1:]]
    assert fetched == 3 * ["twice:0", "next:0"]


def test_a_defect_of_the_call_reaches_the_caller_and_the_threads_live_on():
    with Asking() as ask:
        with pytest.raises(KeyError, match="nothing:0"):
            ask([1], ["nothing:0"]).result(120)
        assert outcome(ask([1])) == [2]


def test_closing_ends_what_waits():
    with Asking(max_batch_size=2, batch_timeout_micros=HOUR) as ask:
        waiting = [ask([1], [name]) for name in ("twice:0", "next:0")]
        ask.batcher.close()
        assert [outcome(answer)[0] for answer in waiting] == [Code.CANCELLED] * 2
        assert outcome(ask([1]))[0] == Code.CANCELLED
    assert ask.calls.asked == []


def test_a_batch_is_stopped_when_the_last_of_its_clients_waits_no_more():
    with Asking(max_batch_size=2, batch_timeout_micros=HOUR) as ask:
        before = time.monotonic()
        answers = [ask([1], timeout_s=30), ask([2], timeout_s=500)]
        assert [outcome(answer) for answer in answers] == [[2], [4]]
        assert before + 500 <= ask.calls.ends_at <= time.monotonic() + 500
        answers = [ask([1], timeout_s=30), ask([2])]
        assert [outcome(answer) for answer in answers] == [[2], [4]]
        assert ask.calls.ends_at == float("inf")


def test_a_request_whose_time_is_over_before_its_turn_is_not_run():
    with Asking(max_batch_size=1) as ask:
        with ask.while_one_runs():
            late = ask([1], timeout_s=0)
            refused = [ask([row], timeout_s=0) for row in range(20)]
            assert futures.wait(refused, 20, futures.FIRST_COMPLETED).done  # the queue is full
        message = "Run() timeout exceeded while waiting in batching queue"
        assert outcome(late) == (Code.RESOURCE_EXHAUSTED, message)
    assert ask.calls.rows == [[0]]


@contextlib.contextmanager
def served(models, model, **parameters):
    """A server with batching on one thread, and a client."""
    batching = BatchingParameters(**{"num_batch_threads": 1, **parameters})
    with Server(models, port=0, poll_s=0.02, batching=batching) as server:
        server.wait_until_available(120)
        with Client(f"127.0.0.1:{server.port}", model, timeout_s=120, retries=0) as client:
            yield server, client


def test_clients_with_different_parameters_share_a_call(vec_versions):
    def ask(client, row):
        inputs = {
            "text": [f"row {row}"],
            "temperature": np.array([row / 2], np.float32),
            "seed": np.array([row], np.int32),
        }
        return client.predict(inputs, signature_name="opt")["o"].tolist()

    with (
        served({"vec": vec_versions}, "vec", max_batch_size=4, batch_timeout_micros=HOUR) as (
            _,
            client,
        ),
        futures.ThreadPoolExecutor(4) as threads,
    ):
        answers = list(threads.map(lambda row: ask(client, row), range(4)))
    assert answers == [[f"row {row}|{row / 2:.1f}|{row}".encode()] for row in range(4)]


def test_a_default_of_one_row_is_refused_beside_two(vec_versions):
    with served({"vec": vec_versions}, "vec") as (_, client):
        assert client.predict({"text": ["a"]}, signature_name="opt")["o"].tolist() == [b"a|1.0|7"]
        with pytest.raises(ServingError, match="equal 0th-dimension size") as refused:
            client.predict({"text": ["a", "b"]}, signature_name="opt")
    assert refused.value.code == Code.INVALID_ARGUMENT


def wait_for_a_request(server, model):
    """Waits until a request of `model` has come."""

    def is_running():
        return any(version.running for version in server.versions.statuses(model))

    assert server.versions.wait_until(is_running, 120)


def test_a_request_whose_client_has_gone_leaves_the_queue(tmp_path, gate_versions, runs):
    gate, never = tmp_path / "open", tmp_path / "never"
    wait_until_it_runs = runs(gate)

    with (
        served({"gate": gate_versions}, "gate", max_batch_size=1, max_enqueued_batches=1) as (
            server,
            client,
        ),
        futures.ThreadPoolExecutor(3) as threads,
    ):
        running = threads.submit(client.predict, {"path": [str(gate)]})
        wait_until_it_runs()
        with Client(client.address, "gate", retries=0) as leaving:
            answers = [threads.submit(leaving.predict, {"path": [str(never)]}) for _ in range(2)]
            # One of them waits, once the other is refused.
            refused, waiting = futures.wait(answers, 20, futures.FIRST_COMPLETED)
        assert [answer.exception().code for answer in refused] == [Code.UNAVAILABLE]
        assert [answer.exception(120).code for answer in waiting] == [Code.CANCELLED]
        wait_for_running(server, client, 1)
        gate.touch()
        assert running.result(120)["version"] == [2]
        # Had the one that left been run, it would hold the only thread for ever.
        assert client.predict({"path": [str(gate)]})["version"] == [2]


def wait_for_running(server, client, number):
    """Waits until so many requests of `gate` run or wait; nothing tells of their end."""
    ends_at = time.monotonic() + 20
    while sum(version.running for version in server.versions.statuses("gate")) != number:
        assert time.monotonic() < ends_at
        client.status()


def test_a_batch_whose_client_waits_no_more_is_stopped(tmp_path, gate_versions):
    gate, never = tmp_path / "open", tmp_path / "never"
    gate.touch()
    with served({"gate": gate_versions}, "gate") as (_, client):
        with pytest.raises(ServingError) as gone:
            client.predict({"path": [str(never)]}, timeout_s=0.3)
        assert gone.value.code == Code.DEADLINE_EXCEEDED
        # Were it not, it would hold the only thread for ever.
        assert client.predict({"path": [str(gate)]})["version"] == [2]


def test_a_slow_model_does_not_hold_up_another(tmp_path, vec_versions, gate_versions):
    models = {"vec": ServedModel(str(vec_versions)), "gate": ServedModel(str(gate_versions))}
    gate = tmp_path / "open"

    with (
        served(models, "gate", max_batch_size=1) as (server, client),
        Client(f"127.0.0.1:{server.port}", "vec") as other,
        futures.ThreadPoolExecutor(1) as thread,
    ):
        slow = thread.submit(client.predict, {"path": [str(gate)]})
        wait_for_a_request(server, "gate")
        inputs = {"x": np.ones([1, 2], np.float32), "n": np.array([1], np.int32)}
        assert other.predict(inputs)["y"].tolist() == [[3, 3]]
        gate.touch()
        assert slow.result(120)["version"] == [2]


def test_a_swap_of_versions_loses_no_request_that_waits(tmp_path, gate_versions, publish, runs):
    base, gate = tmp_path / "gate", tmp_path / "open"
    wait_until_it_runs = runs(gate)
    publish(gate_versions / "1", base / "1")

    with (
        served([base], "gate", max_batch_size=1, max_enqueued_batches=2) as (server, client),
        futures.ThreadPoolExecutor(4) as threads,
    ):
        answers = [threads.submit(client.predict, {"path": [str(gate)]})]
        wait_until_it_runs()
        answers += [threads.submit(client.predict, {"path": [str(gate)]}) for _ in range(3)]
        # Two wait for it, once the fourth is refused.
        refused = futures.wait(answers, 20, futures.FIRST_COMPLETED).done
        publish(gate_versions / "2", base / "2")
        assert server.versions.wait_until(
            lambda: server.versions.statuses("gate")[0][:2] == (2, 30), 20
        )
        gate.touch()
        kept = [answer for answer in answers if answer not in refused]
        assert [answer.result(120)["version"] for answer in kept] == [[1]] * 3
        assert client.predict({"path": [str(gate)]})["version"] == [2]
    for answer in refused:
        with pytest.raises(ServingError, match="queue to which this task was submitted is full"):
            answer.result()


def test_a_server_that_stops_lets_no_request_wait_for_others(vec_versions):
    inputs = {"x": np.ones([1, 2], np.float32), "n": np.array([1], np.int32)}
    with (
        served({"vec": vec_versions}, "vec", max_batch_size=2, batch_timeout_micros=HOUR) as (
            server,
            client,
        ),
        futures.ThreadPoolExecutor(1) as thread,
    ):
        answer = thread.submit(client.predict, inputs)
        wait_for_a_request(server, "vec")
        server.stop(600)
        assert answer.result(120)["y"].tolist() == [[3, 3]]


def test_a_batch_that_still_runs_after_the_grace_is_cancelled(tmp_path, gate_versions):
    with (
        served({"gate": gate_versions}, "gate") as (server, client),
        futures.ThreadPoolExecutor(1) as thread,
    ):
        answer = thread.submit(client.predict, {"path": [str(tmp_path / "never")]})
        wait_for_a_request(server, "gate")
        server.stop(0.1)
        with pytest.raises(ServingError) as refused:
            answer.result(120)
    assert refused.value.code in (Code.CANCELLED, Code.UNAVAILABLE)
