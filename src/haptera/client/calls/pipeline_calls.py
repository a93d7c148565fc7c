"""The call of a database that begins a pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haptera.client.calls.calling import Calling

if TYPE_CHECKING:
    from haptera.client.calls.pipeline import Pipeline


class PipelineCalls(Calling):
    """The call that makes a batch of other calls."""

    def pipeline(self, *, check: bool = True) -> Pipeline:
        """Collect calls and send them together: ``async with db.pipeline() as p``.

        Each call of the block, such as ``p.get("a")``, gives a `Pending`, whose ``result()`` is there behind the block.
        The calls leave in their order, all together, and are answered one by one: they are no transaction. For changes
        that have to happen together, or not at all, there are `transact` and `transaction`.

            >>> async with db.pipeline() as p:
            ...     name, visits = p.get("name"), p.increment("visits")
            >>> name.result(), visits.result()
            (None, 1)

        Args:
            check: Whether the end of the block raises the error of the first call that has failed.

        Returns:
            The pipeline, which has sent nothing yet.
        """
        from haptera.client.calls.pipeline import Pipeline  # noqa: PLC0415

        return Pipeline(self._database, check=check)
