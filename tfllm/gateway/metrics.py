"""What a gateway counts; times are in seconds."""

from __future__ import annotations

from tfllm.serving.monitoring import Counter, Gauge, Histogram, exponential

_SECONDS = exponential(0.001, 1.6, 26)

REQUESTS = Counter("/tfllm/gateway/requests", "path", "code")
PROMPT_TOKENS = Counter("/tfllm/gateway/prompt_tokens", "model_name")
REUSED_TOKENS = Counter("/tfllm/gateway/reused_tokens", "model_name")  # of prompts, not read again
TOKENS = Counter("/tfllm/gateway/generated_tokens", "model_name")
BEGUN_AGAIN = Counter("/tfllm/gateway/texts_begun_again", "model_name")
LEFT = Counter("/tfllm/gateway/texts_left", "model_name")  # by their clients

TIME_TO_FIRST_TOKEN = Histogram("/tfllm/gateway/time_to_first_token", "model_name", limits=_SECONDS)
# From one piece of a text to the next; a piece is one token or, when many wait, a few.
TIME_BETWEEN_PIECES = Histogram("/tfllm/gateway/time_between_pieces", "model_name", limits=_SECONDS)
QUEUE_TIME = Histogram("/tfllm/gateway/queue_time", "model_name", limits=_SECONDS)
DECODE_STEP = Histogram("/tfllm/gateway/decode_step", "model_name", limits=_SECONDS)
BATCH_FILL = Histogram("/tfllm/gateway/batch_rows", "model_name", limits=exponential(1, 2, 10))

WAITING = Gauge("/tfllm/gateway/waiting_texts", "model_name", "address")
RUNNING = Gauge("/tfllm/gateway/running_texts", "model_name", "address")
SLOTS = Gauge("/tfllm/gateway/slots", "model_name", "address")
IS_UP = Gauge("/tfllm/gateway/server_is_up", "model_name", "address")
