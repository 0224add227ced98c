"""The 256 printable characters that stand for bytes in the files of byte-level BPE."""


def _alphabet() -> str:
    """Character of each byte: printable Latin-1 is itself, the rest is numbered from U+0100."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return "".join(chr(byte if byte in printable else next(others)) for byte in range(256))


ALPHABET = _alphabet()
"""Character of each byte, as in "Ġ" for a space. Source: `bytes_to_unicode` of GPT-2's encoder.py,
https://github.com/openai/gpt-2; `BYTES_CHAR` of Hugging Face `tokenizers`."""

_BYTES = {ord(character): byte for byte, character in enumerate(ALPHABET)}


def spelled(raw: bytes) -> str:
    """The characters of some bytes."""
    return raw.decode("latin-1").translate(ALPHABET)


def unspelled(token: str) -> bytes:
    """The bytes of a token; its UTF-8 where a character of it stands for none."""
    if all(ord(character) in _BYTES for character in token):
        return token.translate(_BYTES).encode("latin-1")
    return token.encode()
