"""Random numbers of one step of a run."""

import tensorflow as tf


def uniform(seed, draw: int, shape) -> tf.Tensor:
    """Numbers that nothing but the step and the draw decides.

    Args:
        seed: int64[2], the run's seed and the step.
        draw: Which of the step's draws it is; each is independent of the others.
        shape: Of the result.

    Returns:
        float32[*shape] in [0, 1).
    """
    return tf.random.stateless_uniform(
        shape, tf.random.experimental.stateless_fold_in(seed, tf.constant(draw, tf.int64))
    )
