"""Cleaning steps for texts of the web, for bags of words, and for Chinese; see cleaning.STEPS, where all have names."""

from __future__ import annotations

import html.parser
import logging
import re
import unicodedata
import warnings
from collections.abc import Callable

from purelm.errors import UserError

TextStep = Callable[[str], str]

_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_URL = re.compile(r"(?<![A-Za-z0-9])(?:https?://|ftp://|www\.)[!-;=?-~]+", re.IGNORECASE)
_SPACES = re.compile(r"\s+")
_WORD = re.compile(r"\w+(?:['\u2019]\w+)*")
# Elements that stand on lines of their own: a tag of theirs becomes a newline, any other tag nothing.
_BLOCKS = {"address", "article", "blockquote", "body", "br", "dd", "div", "dl", "dt", "footer", "form", "h1", "h2",
           "h3", "h4", "h5", "h6", "head", "header", "hr", "html", "li", "main", "nav", "ol", "p", "pre", "section",
           "table", "td", "th", "title", "tr", "ul"}
_UNSEEN = {"script", "style"}


def strip_html() -> TextStep:
    """Removes tags, comments, scripts and styles, and resolves entities (HTML5: the standard library's parser).

    A tag that breaks the line (<br />, <p>, ...) becomes a newline; a "<" that opens no tag stays. What merely looks
    like a tag, such as WikiText's "<unk>", goes too.
    """
    return lambda text: _Text.of(text) if "<" in text or "&" in text else text


class _Text(html.parser.HTMLParser):
    """Collects the text of a page."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._parts: list[str] = []
        self._unseen = 0

    @classmethod
    def of(cls, text: str) -> str:
        parser = cls()
        parser.feed(text)
        parser.close()
        return "".join(parser._parts)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._unseen += tag in _UNSEEN
        self._break(tag)

    def handle_endtag(self, tag: str) -> None:
        self._unseen -= tag in _UNSEEN and self._unseen > 0
        self._break(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._break(tag)

    def handle_data(self, data: str) -> None:
        if not self._unseen:
            self._parts.append(data)

    def _break(self, tag: str) -> None:
        """One newline for tags that follow each other, as </p><p> do."""
        if tag in _BLOCKS and self._parts and not self._parts[-1].endswith("\n"):
            self._parts.append("\n")


def whitespace() -> TextStep:
    """Every run of white space becomes one space; none stays at the ends."""
    return lambda text: _SPACES.sub(" ", text).strip()


def lower_case() -> TextStep:
    """Unicode's lower case, which leaves scripts without case as they are."""
    return str.lower


def unicode_nfkc() -> TextStep:
    """Compatibility composition (Unicode Standard Annex 15): full-width forms, ligatures, ... become plain letters."""
    return lambda text: unicodedata.normalize("NFKC", text)


def remove_urls() -> TextStep:
    """Removes addresses that begin with http://, https://, ftp:// or www., up to the next character that is not ASCII,
    a space or an angle bracket."""
    return lambda text: _URL.sub("", text)


def remove_punctuation() -> TextStep:
    """Punctuation of any script (Unicode categories P) becomes a space; inside words apostrophes and hyphens stay."""
    joiners = "'\u2019-\u2010"
    table = {code: " " for code in range(0x20000)
             if unicodedata.category(chr(code)).startswith("P") and chr(code) not in joiners}
    pattern = re.compile(f"[{re.escape(joiners)}]")

    def blank(match: re.Match[str]) -> str:
        text, at = match.string, match.start()
        joins = text[at - 1:at].isalnum() and text[at + 1:at + 2].isalnum()
        return match.group() if joins else " "
    return lambda text: pattern.sub(blank, text.translate(table))


def stop_words_en() -> TextStep:
    """Removes scikit-learn's ENGLISH_STOP_WORDS (318 words, "not" and "never" among them), in any case, and the white
    space after each. Words with an apostrophe match without it ("couldn't" as "couldnt")."""
    try:
        from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS
    except ImportError as error:
        raise UserError(f"config.data.cleaning: the step 'stop_words_en' needs scikit-learn ({error}); run pip install "
                        "scikit-learn") from error
    pattern = re.compile(_WORD.pattern + r"\s?")

    def keep(match: re.Match[str]) -> str:
        word = match.group().rstrip().lower().replace("'", "").replace("\u2019", "")
        return "" if word in ENGLISH_STOP_WORDS else match.group()
    return lambda text: pattern.sub(keep, text)


def stop_words_zh() -> TextStep:
    """Removes Chinese function words (STOP_WORDS_ZH) that stand between spaces; put `segment_chinese` before it."""
    def step(text: str) -> str:
        return "\n".join(" ".join(word for word in line.split(" ") if word not in STOP_WORDS_ZH)
                         for line in text.split("\n"))
    return step


def segment_chinese() -> TextStep:
    """Puts spaces between the words of Chinese text, as jieba finds them; other scripts stay as they are."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import jieba
    except ImportError as error:
        raise UserError(f"config.data.cleaning: the step 'segment_chinese' needs jieba ({error}); run pip install "
                        "jieba") from error
    jieba.setLogLevel(logging.WARNING)
    run = re.compile(rf"[{_HAN}]+")

    def step(text: str) -> str:
        spaced = run.sub(lambda match: f" {' '.join(jieba.cut(match.group()))} ", text)
        return re.sub(r"^ | $", "", re.sub(" {2,}", " ", spaced), flags=re.MULTILINE) if spaced != text else text
    return step


# Function words alone: particles, pronouns, prepositions, conjunctions, adverbs of degree and time, auxiliaries,
# measure words. Words of negation (不, 没, 没有, 别) are not among them: they turn a sentence's sense about.
STOP_WORDS_ZH = frozenset("""
    的 地 得 了 着 过 吗 呢 吧 啊 呀 嘛 啦 哦 哈 么 之 所 似的 一样 而已 罢了 我 你 您 他 她 它 我们 你们 他们
    她们 它们 咱们 自己 大家 别人 人家 这 那 这个 那个 这些 那些 这里 那里 这儿 那儿 这样 那样 这么 那么 此 其
    该 本 某 每 各 谁 什么 哪 哪个 哪些 哪里 怎么 怎样 多少 几 在 从 到 向 往 自 由 对 对于 关于 和 跟 与 同 及
    以及 给 为 为了 把 将 被 让 叫 用 以 按 按照 根据 比 除了 随着 通过 而 而且 并 并且 或 或者 还是 但 但是
    可是 不过 然而 虽然 尽管 因为 由于 所以 因此 于是 如果 要是 假如 只要 只有 无论 不管 即使 就算 既 既然 不仅
    不但 也 都 又 再 还 就 才 便 只 仅 很 太 更 最 非常 十分 比较 已 已经 正 正在 曾 曾经 将要 马上 刚 刚刚 常常
    经常 总是 一直 便是 就是 可以 能 能够 会 应该 应 可能 要 想 愿意 必须 是 有 等 等等 个 一个 一些 一种 些 种
    位 只是 之一 上 下 里 中 内 外 前 后 之前 之后 之间 以前 以后 以上 以下 时 时候
""".split())  # noqa: SIM905
