"""Fifty prompts of every kind: empty, long, many scripts, white space, emoji, control."""

_KINDS = [
    "",
    " ",
    "\n",
    "Hello",
    " Hello, world!",
    "The quick brown fox jumps over the lazy dog.",
    "It's a man's world, isn't it? We'll see; they've said I'd go.",
    "1234567890 3.14 1,000,000 ½ ² ٣ ४",
    "tabs\tand\nnew lines\r\nand   runs of    spaces   ",
    "你好，世界。今天天气很好，我们去公园。",
    "日本語のテキスト、カタカナとひらがな。",
    "한국어 문장입니다.",
    "Привет, мир! Как дела?",
    "مرحبا بالعالم",
    "שלום עולם",
    "नमस्ते दुनिया",
    "สวัสดีชาวโลก",
    "Ελληνικά με τόνους",
    "naïve café façade Ångström",
    "İstanbul ß ﬁ ŒŒ",
    "emoji 🙂👋🏽👨‍👩‍👧‍👦🇫🇷 end",
    "zero\u200bwidth\u200djoiner\ufeffbom",
    "\u0000\u0001control\u007f\u0085",
    "combining e\u0301 a\u0308\u0323",
    "math ∑ ∫ √ ≠ ≤ 𝔘𝔫𝔦",
    "def f(x):\n    return {'a': [x ** 2, None]}  # code",
    "<html><b>&amp;</b></html>",
    "http://example.com/a?b=c&d=%20#e",
    "ALL CAPS AND lower AND MiXeD",
    "....,,,,;;;;::::!!!!????",
    "((((([[[[{{{{",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "a b c d e f g h i j k l m n o p",
    "“quotes” ‘single’ — dash … dots",
    "$€£¥₹ 100% #1 @home *bold* _x_",
]


def prompts() -> list[str]:
    """The fifty, in an order that never changes; the longest have 60 words."""
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    sentences = [
        " ".join(words[(3 * i + j * (i + 1)) % 10] for j in range(4 * (i + 1))) for i in range(15)
    ]
    return _KINDS + sentences
