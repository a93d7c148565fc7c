"""Show the simulated run of a seed, line by line: ``python -m tests.simulation SEED``, and with ``gaps`` behind it the
run in which the node leaves them.
"""

from __future__ import annotations

import sys
import traceback

from tests.simulation.run import simulate
from tests.simulation.transcript import Transcript


def main() -> int:
    """Print the run; 1 if it broke a promise."""
    transcript = Transcript()
    try:
        simulate(int(sys.argv[1]), transcript, leaves_gaps=sys.argv[2:] == ["gaps"])
    except Exception:
        print(transcript.text(), end="")
        traceback.print_exc()
        return 1
    print(transcript.text(), end="")
    return 0


sys.exit(main())
