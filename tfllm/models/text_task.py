"""What every model that reads and writes text has: its signatures, for calls and for exports."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from tfllm import contract
from tfllm.calls import Calls
from tfllm.chat import ChatTemplate
from tfllm.errors import UserError
from tfllm.models.text_functions import TextFunctions, build


class TextTask(Calls):
    """Mixed in before the calls of `tfllm.calls`, for which it gives `_ask` and `_defaults`.

    A subclass calls `_set_up` in its constructor, has `variables`, and gives `text` and
    `save_to_preset`.

    Attributes:
        sensitive_layers: Patterns of `fnmatch` for the paths of layers that an export in int8
            keeps in bfloat16.
    """

    sensitive_layers: Sequence[str] = ()
    variables: Any
    weights: Any
    save_to_preset: Callable[..., None]

    def _set_up(self, backbone, preprocessor):
        self.backbone = backbone
        self.preprocessor = preprocessor
        self._text_functions = None
        self._traced = None

    def text(self, **options: Any) -> TextFunctions:
        """The signatures of this model, for its own calls and for an export."""
        raise NotImplementedError

    def _tokenizer(self):
        if self.preprocessor is None:
            raise UserError(
                "This model has no preprocessor, so it cannot read or write text: construct it "
                "with one, or load it with `from_preset`."
            )
        return self.preprocessor.tokenizer

    def text_functions(self) -> Mapping[str, Callable]:
        """The `tf.function`s behind the calls, by signature name."""
        # LoRA brings variables that a graph traced before it does not read, and a chat template
        # tokens that end a text.
        read = [variable.path for variable in self.variables]
        read.append(self._tokenizer().chat_template)
        if self._traced != read:
            text = self.text()
            self._traced = read
            self._text_functions = (text, build(text))
        return self._text_functions[1]

    async def _template(self) -> ChatTemplate:
        template = self._tokenizer().chat_template
        if template is None:
            raise UserError(
                "This model has no chat template. Give it the one that it was trained with: "
                "model.preprocessor.tokenizer.chat_template = ChatTemplate(…)."
            )
        return template

    async def _ask(self, signature, inputs, **options):
        if options:
            raise UserError(f"A live model has no option {', '.join(options)}; a client has.")
        fields = contract.SIGNATURES[signature].inputs
        columns = [tf.constant(inputs[field.name], field.dtype) for field in fields]
        outputs = self.text_functions()[signature](*columns)
        return {name: tensor.numpy() for name, tensor in outputs.items()}

    async def _defaults(self, signature):
        self.text_functions()
        fields = self._text_functions[0].signatures[signature].inputs
        return {field.name: field.default for field in fields if field.default is not None}
