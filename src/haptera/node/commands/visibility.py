"""The keys of an open range that its reader may see, by the grants that stand when it is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haptera.state import refusal, shown_with

if TYPE_CHECKING:
    from haptera.errors import Failure
    from haptera.node.commands.submitter import Submitter
    from haptera.state import Glob, Permits, Sieve, Steps, operations


class Visibility:
    """The view that a submitter has of the range of a scan. ``sieve`` is as of the last `refusal`."""

    __slots__ = ("_op", "_permits", "_prefix", "_submitter", "sieve")

    def __init__(self, submitter: Submitter, op: operations.OpenScan, glob: Glob | None) -> None:
        self._submitter = submitter
        self._op = op
        self._prefix = op.prefix or ("" if glob is None else glob.prefix)
        self._permits: Permits | None = None
        #: The keys that may be seen; None for all of the range.
        self.sieve: Sieve | None = None

    def compile_steps(self) -> Steps[None]:
        """Make ready for `refusal`, in slices."""
        permits = self._submitter.permits()
        if permits is not None:
            yield from permits.compile_steps()

    def refusal(self) -> Failure | None:
        """Why no key may be seen any more, or None."""
        permits = self._submitter.permits()
        if permits is self._permits:
            return None
        refused = None if permits is None else refusal(self._op, permits)
        if refused is None:
            self._permits = permits
            self.sieve = None if permits is None else permits.sieve(shown_with(self._op), self._prefix)
        return refused
