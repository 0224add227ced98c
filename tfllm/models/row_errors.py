"""What is wrong with a row of a request to a generator, in words."""

import tensorflow as tf

from tfllm.decoding import Sampling


def wrong(rule: str, value) -> tf.Tensor:
    """string[b], the rule and the value that breaks it."""
    return tf.strings.join([rule, ", got ", tf.strings.as_string(value)])


def too_long(what: str, lengths, most: int) -> tf.Tensor:
    """string[b], that int32[b] tokens are more than the model takes."""
    return tf.strings.join(
        [what, " is too long: ", tf.strings.as_string(lengths), f" tokens, the model takes {most}"]
    )


def sampling_errors(sampling: Sampling) -> list[tuple]:
    """Pairs of bool[b] and a message, for `first_error`."""

    def outside(x, least, most):
        return ~((x >= least) & (x <= most))  # true for NaN too

    t, p, m, r = (
        sampling.temperature, sampling.top_p, sampling.min_p, sampling.repetition_penalty
    )  # fmt: skip
    largest = tf.float32.max
    return [
        (outside(t, 0.0, largest), wrong("temperature must be finite and at least 0", t)),
        (sampling.top_k < 0, wrong("top_k must be at least 0", sampling.top_k)),
        (outside(p, 0.0, 1.0), wrong("top_p must be from 0 to 1", p)),
        (outside(m, 0.0, 1.0), wrong("min_p must be from 0 to 1", m)),
        (
            outside(r, 0.0, largest) | (r == 0.0),
            wrong("repetition_penalty must be finite and above 0", r),
        ),
        *(
            (outside(x, -2.0, 2.0), wrong(f"{name} must be from -2 to 2", x))
            for name, x in (
                ("presence_penalty", sampling.presence_penalty),
                ("frequency_penalty", sampling.frequency_penalty),
            )
        ),
    ]
