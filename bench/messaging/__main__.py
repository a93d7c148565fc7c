"""``python -m bench.messaging``"""

from __future__ import annotations

import sys

from bench.messaging.compare import main

sys.exit(main())
