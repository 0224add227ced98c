"""What the tasks of encoders share."""

import tensorflow as tf

from tfllm import contract
from tfllm.errors import UserError
from tfllm.models.encoder_inputs import encoder_inputs, most_bytes
from tfllm.models.encoder_preprocessor import EncoderPreprocessor, require_encoder_tokenizer
from tfllm.models.encoders import ENCODERS
from tfllm.models.length_groups import in_length_groups
from tfllm.models.task import Task
from tfllm.models.text_functions import TextFunctions, first_error


class EncoderTask(Task):
    """Mixed in before a task class of KerasHub, as `Task`."""

    backbone_cls = ENCODERS
    preprocessor_cls = EncoderPreprocessor
    # Rounded to int8, these move the embeddings of short texts more than all other layers do.
    sensitive_layers = ("*/value",)

    def _set_up(self, backbone, preprocessor, seed):
        super()._set_up(backbone, preprocessor, seed)
        if preprocessor is not None and preprocessor.sequence_length > backbone.max_sequence_length:
            raise UserError(
                f"The preprocessor makes rows of {preprocessor.sequence_length} tokens, the "
                f"backbone takes {backbone.max_sequence_length}: give the preprocessor a smaller "
                "sequence_length."
            )

    @tf.autograph.experimental.do_not_convert  # it would wrap a UserError in its own
    def preprocess_samples(self, x, y=None, sample_weight=None):
        if self.preprocessor is not None and not isinstance(x, dict):
            require_encoder_tokenizer(self._tokenizer(), self.backbone.vocabulary_size)
        return super().preprocess_samples(x, y, sample_weight)


def one_per_row(y, weight) -> tf.Tensor:
    """float32[b], the `target_weights` of a task that has one target per row of `y`."""
    if weight is None:
        return tf.ones(tf.shape(y)[:1])
    return tf.reshape(tf.cast(weight, tf.float32), [-1])


def too_long(what: str, num_tokens: int) -> str:
    """What is said of a text whose beginning holds too few tokens."""
    most = most_bytes(num_tokens)
    return f"{what} is too long: its first {most} bytes hold fewer tokens than the model takes"


class EncoderText(TextFunctions):
    """The signatures of a model that reads whole texts.

    Raises:
        UserError: the tokenizer is none for this model.
    """

    def __init__(self, model, tokenizer):
        require_encoder_tokenizer(tokenizer, model.backbone.vocabulary_size)
        super().__init__(model, tokenizer)
        self.sequence_length = model.preprocessor.sequence_length

    def read(self, text, text_pair=None):
        """The model's inputs for string[b] or pairs; and string[b], what is wrong with each."""
        inputs, is_lost = encoder_inputs(self.tokenizer, text, text_pair, self.sequence_length)
        return inputs, first_error([(is_lost, too_long("the text", self.sequence_length))])

    def in_groups(self, inputs, compute, outputs):
        """What a function makes of the inputs of some rows, for groups of rows of like length.

        Args:
            inputs: As of `read`, each int32[b, t].
            compute: Takes them for n rows, cut to the longest of these, and returns a sequence of
                outputs, each [n, ...].
            outputs: As of `in_length_groups`.

        Returns:
            The outputs [b, ...].
        """

        def some(rows, width):
            return compute({name: tf.gather(x, rows)[:, :width] for name, x in inputs.items()})

        lengths = tf.reduce_sum(inputs["padding_mask"], -1)
        return in_length_groups(lengths, self.sequence_length, some, outputs)

    def model_output(self, inputs):
        """The model's output, float32[b, d], for inputs as of `read`."""
        output = self.model.output
        (found,) = self.in_groups(
            inputs,
            lambda some: [self.model(some, training=False)],
            [tf.TensorSpec(output.shape[1:], output.dtype)],
        )
        return found

    def requests(self):
        name = self.default_signature()
        fields = contract.SIGNATURES[name].inputs
        texts = self.some_texts()
        return [
            (
                contract.SERVING_DEFAULT,
                {field.name: texts for field in fields if field.default is None},
            ),
            (name, {field.name: texts for field in fields}),
            *super().requests(),
        ]

    def default_signature(self) -> str:
        """The name of the signature behind `serving_default`."""
        return next(name for name in self.signatures if name != contract.SERVING_DEFAULT)

    def some_texts(self) -> list[str]:
        """An empty text, a short one, a single character and one that is cut."""
        some = self.some_text()
        return ["", some, some[:1], f"{some} " * self.sequence_length]

    def metadata(self):
        return {"context_length": self.sequence_length}
