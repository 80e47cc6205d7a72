"""A text as it grows, token by token, of which only what no later token changes is given out."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

_PART = "\ufffd"  # what a decoder writes for a part of a character
_PARTS = 4  # tokens that a character may have, one a byte


class GrowingText:
    """The pieces of a text: joined, they are what `decode` gives at once, cut at the first stop and stripped.

    Held back are parts of characters, white space that may turn out to be the last, and what may be the beginning of a
    stop. Each token decodes a window of a few tokens, not the whole text.

    Args:
        tokenizer: Of the tokens.
        stops: Texts that end it and are no part of it.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stops: Sequence[str] = ()) -> None:
        """Empty."""
        self.tokenizer, self.stops = tokenizer, [*stops]
        self.stopped = False  # whether a stop was found: nothing follows
        self._ids: list[int] = []
        self._window, self._read = 0, 0  # where the window begins, and how far its text is known
        self._text, self._given = "", 0  # what is decoded, and how much of it was given out

    def add(self, token: int) -> str:
        """One more token; the piece that may be given out now."""
        self._ids.append(token)
        return self._grown(last=False)

    def end(self) -> str:
        """The rest: no token follows."""
        return "" if self.stopped else self._grown(last=True)

    def _grown(self, *, last: bool) -> str:
        """Decodes what is new, looks for stops, and says what may be given out."""
        searched = len(self._text)
        self._text += self._decoded(last=last)
        self._cut(searched)
        last = last or self.stopped
        whole = self._text if last else self._text[: len(self._text) - self._held()]
        begin = max(self._given, len(self._text) - len(self._text.lstrip()))
        self._given = max(self._given, len(whole.rstrip()))
        return self._text[begin : self._given]

    def _decoded(self, *, last: bool) -> str:
        """The text of the tokens since `_read`, without those at the end that may be a part of a character."""
        known, text, read = self._decode(self._window, self._read), self._decode(self._window), len(self._ids)
        if text.endswith(_PART) and not last:
            read -= _PARTS  # parts before these will never be whole
            before = self._decode(self._window, read) if read > self._read else ""
            text = before if text.startswith(before) else ""
        if len(text) <= len(known):
            return ""
        self._window, self._read = self._read, read
        return text[len(known) :]

    def _decode(self, begin: int, end: int | None = None) -> str:
        """The tokens of a window as text."""
        ids = self._ids[begin:end]
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)) if ids else ""

    def _cut(self, searched: int) -> None:
        """Cuts the text at the first stop that ends behind `searched`."""
        found = [self._text.find(stop, max(0, searched - len(stop) + 1)) for stop in self.stops]
        places = [place for place in found if place >= 0]
        if places:
            self._text, self.stopped = self._text[: min(places)], True

    def _held(self) -> int:
        """Length of the longest end of the text with which a stop begins."""
        most = min(len(self._text), max((len(stop) - 1 for stop in self.stops), default=0))
        ends = (size for size in range(most, 0, -1) if any(s.startswith(self._text[-size:]) for s in self.stops))
        return next(ends, 0)
