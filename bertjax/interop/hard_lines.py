"""Lines that expose small differences between tokenizers: scripts, accents, white space, controls, long words."""

import random
from collections.abc import Iterator

_FIXED = (
    "Paris is the capital of France, and NATO's is BRUSSELS.",
    "naïve café, Straße, Ångström, İstanbul ıI, Ǆ, ﬁ ﬂ, Ⅷ, ½, ℝ, ß ẞ",
    "Cafe\u0301 e\u0301\u0323 \u0301alone n\u0303o",  # combining accents
    "漢字かな交じり文、「引用」。 한국어 中文ABC中文 𠀀𪛖",
    "हिन्दी भाषा, עִבְרִית, العَرَبِيَّة, ไทย, ქართული, ελληνικά ΣΊΣΥΦΟΣ, Русский ЁЖ",
    "😀👍🏽👩‍👩‍👧‍👦 🇫🇷 ☃️ ✓ →",
    "tab\tnbsp\u00a0em\u2003zero\u200bwidth\u200djoin\ufeffbom\u3000wide\u2028line",
    "\x00\x07\x1b\x7f\x80\u00ad\ufffd\ue000control",
    "don't can't  `` quoted ''  \"x\" 'y' … — – -- ( [ { } ] ) <s> </s> <pad> & &amp; # @user http://a.b/c?d=e",
    "[MASK] [CLS] [SEP] [UNK] [PAD] <mask> ##ing [unused1]",
    "3.14159 1,000,000 $5.00 10% x=y+1 C++ a_b_c ١٢٣ ²³",
    "x" * 99 + " " + "y" * 100 + " " + "z" * 101 + " " + "é" * 200,
    "  leading, double  and trailing   ",
    "",
)
# First and last character of the sampled ranges: Latin and its accents, Greek, Cyrillic, Hebrew, Arabic, Devanagari,
# Thai, Georgian, marks, punctuation, letter-like and enclosed ones, kana, ideographs, Hangul, wide forms, emoji.
_RANGES = (
    *((0x20, 0x7E), (0x20, 0x7E), (0x41, 0x7A), (0xA0, 0xFF), (0x100, 0x24F), (0x300, 0x36F), (0x370, 0x3FF)),
    *((0x400, 0x4FF), (0x590, 0x5FF), (0x600, 0x6FF), (0x900, 0x97F), (0xE00, 0xE7F), (0x10A0, 0x10FF)),
    *((0x1E00, 0x1EFF), (0x2000, 0x206F), (0x2100, 0x218F), (0x2460, 0x24FF), (0x3000, 0x30FF), (0x4E00, 0x9FFF)),
    *((0xAC00, 0xD7A3), (0xFF00, 0xFFEF), (0x1D400, 0x1D7FF), (0x1F300, 0x1F64F), (0x0, 0xFFFF)),
)


def hard_lines(count: int) -> Iterator[str]:
    """Yields `count` lines, the same in every call."""
    yield from _FIXED
    rng = random.Random(0)
    for _ in range(count - len(_FIXED)):
        words = []
        for _ in range(rng.randint(1, 12)):
            first, last = rng.choice(_RANGES)
            characters = (chr(rng.randint(first, last)) for _ in range(rng.randint(1, 12)))
            words.append("".join(character for character in characters if not 0xD800 <= ord(character) <= 0xDFFF))
        yield rng.choice((" ", "", "\t", ", ")).join(words)
