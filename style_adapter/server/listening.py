"""From the thread that writes to the coroutine that answers."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from .answers import Written
from .engine import Engine
from .errors import ApiError
from .orders import Order
from .rows import News


class Listener:
    """What becomes of an order, told in the event loop that made this.

    Args:
        order: Its rows are submitted by `begin`.
    """

    def __init__(self, order: Order) -> None:
        """Nothing is heard yet."""
        self.order = order
        self.texts = [Written() for _ in order.rows]
        self._loop = asyncio.get_running_loop()
        self._heard: asyncio.Queue[tuple[int, News]] = asyncio.Queue()

    def begin(self, engine: Engine) -> None:
        """Has the rows written.

        Raises:
            ApiError: 429, the queue is full.
        """
        for row in self.order.rows:
            row.tell = self._tell
        engine.submit(self.order.rows)

    async def pieces(self) -> AsyncIterator[tuple[int, str, str | None]]:
        """(place, piece, reason) of each text as it grows, until all have ended; `texts` then are whole.

        Raises:
            ApiError: 500, the model failed.
        """
        left = len(self.texts)
        while left:
            place, news = await self._heard.get()
            if news.error is not None:
                raise ApiError(500, news.error)
            text = self.texts[place]
            text.text += news.text
            text.reason, text.tokens = news.reason, news.tokens
            left -= news.reason is not None
            yield place, news.text, news.reason

    async def whole(self) -> Sequence[Written]:
        """The texts, once all have ended."""
        async for _ in self.pieces():
            pass
        return self.texts

    def _tell(self, place: int, news: News) -> None:
        """Called by the thread that writes."""
        try:
            self._loop.call_soon_threadsafe(self._heard.put_nowait, (place, news))
        except RuntimeError:  # the loop has ended, and nobody waits
            self.order.drop()
