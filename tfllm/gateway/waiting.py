"""The texts that have no slot yet: clients in turns, and no more than a bound."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from tfllm.gateway.texts import Refused, Text


class Waiting:
    """A queue for each client; the clients take turns.

    Args:
        most: Texts that may wait.
    """

    def __init__(self, most: int):
        self.most = most
        self._of: dict[str, deque[Text]] = {}  # in the order of their turns

    def __len__(self) -> int:
        return sum(map(len, self._of.values()))

    def add(self, texts: list[Text], num_free: int = 0, retry_after_s: float = 1.0) -> None:
        """Puts texts of one request at the end of their client's queue.

        Args:
            texts: All of them, or none if there is no room.
            num_free: How many need not wait, as there are slots for them.
            retry_after_s: What to tell a client for whose texts there is no room.

        Raises:
            Refused: there would be too many.
        """
        if len(self) + len(texts) > self.most + num_free:
            raise Refused(
                429,
                f"{len(self)} texts are waiting already, of {self.most} at most: ask again later.",
                code="overloaded",
                retry_after_s=retry_after_s,
            )
        for text in texts:
            self._of.setdefault(text.asked.client, deque()).append(text)

    def put_back(self, texts: Iterable[Text]) -> None:
        """Puts texts that were waiting or running already before all others of their client."""
        for text in reversed(list(texts)):
            self._of.setdefault(text.asked.client, deque()).appendleft(text)

    def first(self) -> Text | None:
        """Whose turn it is."""
        for queue in self._of.values():
            if queue[0].may_begin:
                return queue[0]
        return None

    def take(self, text: Text) -> None:
        """Removes a text; the next turn is another client's."""
        client = text.asked.client
        queue = self._of.pop(client)
        queue.remove(text)
        if queue:
            self._of[client] = queue

    def drop(self, text: Text) -> bool:
        """Removes a text if it is here, without a change of turns; whether it was."""
        queue = self._of.get(text.asked.client, deque())
        if text not in queue:
            return False
        queue.remove(text)
        if not queue:
            del self._of[text.asked.client]
        return True

    def take_all(self) -> list[Text]:
        texts = [text for queue in self._of.values() for text in queue]
        self._of.clear()
        return texts


class Elsewhere(Waiting):
    """A queue out of which nothing comes: what is put back waits in another.

    Args:
        other: Where.
    """

    def __init__(self, other: Waiting):
        super().__init__(most=0)
        self._other = other

    def put_back(self, texts: Iterable[Text]) -> None:
        self._other.put_back(texts)
