"""Text files → strings → packed records → resumable tf.data."""

from tfllm.data.documents import read_documents
from tfllm.data.prepare import prepare
from tfllm.data.records import Records
from tfllm.data.sources import Skips

__all__ = ["Records", "Skips", "prepare", "read_documents"]
