"""The backbones that an encoder's task works on."""

from tfllm.models.bert import BertBackbone
from tfllm.models.lstm_encoder import LSTMEncoderBackbone


class AnyOf:
    """Equal to each of some classes.

    KerasHub finds the task of a preset by `task.backbone_cls == class of its backbone`. A task
    that works on several backbones answers with one of these.

    Args:
        *classes: Those it is equal to.
    """

    def __init__(self, *classes: type):
        self.classes = classes
        self.__name__ = " or ".join(cls.__name__ for cls in classes)

    def __eq__(self, other):
        return other is self or other in self.classes

    def __hash__(self):
        return hash(self.classes)


ENCODERS = AnyOf(BertBackbone, LSTMEncoderBackbone)
