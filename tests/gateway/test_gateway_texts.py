"""Streams put together are the texts of `generate`."""


def test_a_text_is_that_of_generate(running, gpt):
    answer = running.complete(prompt="the cat", max_tokens=12, temperature=0)
    expected = gpt.generate("the cat", max_new_tokens=12)
    (choice,) = answer["choices"]
    assert (choice["text"], choice["finish_reason"]) == (expected.text, expected.finish_reason)
    assert answer["usage"]["completion_tokens"] == expected.num_tokens
