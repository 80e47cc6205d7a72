"""Which words of a text a rewrite has changed, as HTML in which nothing of a user is markup."""

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from html import escape

from ..inference import Choice

MARKS = {"equal": "{}", "delete": "<del>{}</del>", "insert": "<ins>{}</ins>"}


def changes(source: str, output: str) -> Iterator[tuple[str, str]]:
    """(equal | delete | insert, words) along the longest runs of words that both texts have in common.

    >>> [*changes("you have no fear", "thou hast no fear")]
    [('delete', 'you have'), ('insert', 'thou hast'), ('equal', 'no fear')]
    """
    before, after = source.split(), output.split()
    for kind, i, j, k, m in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if kind not in {"insert", "equal"}:
            yield "delete", " ".join(before[i:j])
        if kind != "delete":
            yield ("equal" if kind == "equal" else "insert"), " ".join(after[k:m])


def marked(source: str, output: str) -> str:
    """The rewrite as HTML, with the words of the source that are gone struck out and new ones underlined.

    >>> marked("a <b>", "a c")
    'a <del>&lt;b&gt;</del> <ins>c</ins>'
    """
    return " ".join(MARKS[kind].format(escape(words)) for kind, words in changes(source, output))


def cards(source: str, choices: Sequence[Choice], *, rewrites: bool) -> str:
    """Candidates side by side, best first, each with its score; changed words are marked where they are `rewrites`."""
    shown = []
    for number, choice in enumerate(choices, 1):
        text = marked(source, choice.text) if rewrites else escape(choice.text)
        score = f", score {choice.score:.2f}" if rewrites else ""
        shown.append(f'<article><p class="text">{text}</p><small>{number}{score}</small></article>')
    return f'<section class="cards">{"".join(shown)}</section>'


def notice(text: str) -> str:
    """One sentence in place of candidates."""
    return f'<p class="notice">{escape(text)}</p>'
