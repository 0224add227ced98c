"""Text files → strings → packed records → resumable tf.data."""

from tfllm.data.documents import read_documents
from tfllm.data.prepare import prepare
from tfllm.data.records import Records
from tfllm.data.sources import Skips
from tfllm.data.words import prepare_words

__all__ = ["Records", "Skips", "prepare", "prepare_words", "read_documents"]
