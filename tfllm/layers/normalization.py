"""Layer norms, made and built at once."""

import keras


def layer_norm(shape, *, epsilon=1e-5, dtype, name) -> keras.layers.LayerNormalization:
    """A norm over the last dimension, with gain and bias.

    Args:
        shape: Of what it will normalise, a tuple of sizes or None.
        epsilon: Added to the variance.
        dtype: Policy; the norm computes in float32 whatever it is.
        name: Of the layer.

    Source:
        Ba et al. 2016, https://arxiv.org/abs/1607.06450
    """
    norm = keras.layers.LayerNormalization(epsilon=epsilon, dtype=dtype, name=name)
    norm.build(shape)
    return norm
