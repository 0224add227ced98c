"""A gateway: streams of text and OpenAI's HTTP interface, in front of unmodified model servers."""
