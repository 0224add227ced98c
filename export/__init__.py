"""Models to SavedModels that the stock TensorFlow Serving runs."""

from tfllm.export.check import CheckFailed
from tfllm.export.describe import inspect_export
from tfllm.export.saved_model import for_serving
from tfllm.export.versions import publish_export

__all__ = ["CheckFailed", "for_serving", "inspect_export", "publish_export"]
