"""The options of the audit log, as fields of `haptera.node.config.NodeConfig`."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from haptera.connection import Bound, seconds
from haptera.node.option_kinds import amount, choice

#: A few hundred lines.
AUDIT_FILE_SIZE_MIN: Final = 64 * 1024
AUDIT_FILE_SIZE_MAX: Final = 1024 * 1024 * 1024
#: A file is read to its end at each start: 50,000 lines, in a fraction of a second.
AUDIT_FILE_SIZE_DEFAULT: Final = 16 * 1024 * 1024
#: Three million lines.
AUDIT_RETAIN_DEFAULT: Final = 1024 * 1024 * 1024
#: More than a disk has.
AUDIT_RETAIN_MAX: Final = 2**50

AuditData = Annotated[
    Literal["off", "writes", "all"],
    choice(
        "Audit",
        ("off", "writes", "all"),
        "Record these requests of the store in the audit log, too: writes, or all. Authentication, administration, "
        "denials and slow requests are recorded in any case.",
    ),
]
AuditKeys = Annotated[
    Literal["plain", "hashed"],
    choice(
        "Audit",
        ("plain", "hashed"),
        "plain: the audit log has the keys of requests. hashed: it has their HMAC-SHA256, under a secret that follows "
        "from the data key.",
    ),
]
AuditSlow = Annotated[
    float, amount("Audit", "SECONDS", seconds(zero=True), "Record requests that take this long. 0: never.")
]
AuditFileSize = Annotated[
    int,
    amount(
        "Audit",
        "BYTES",
        Bound(low=AUDIT_FILE_SIZE_MIN, high=AUDIT_FILE_SIZE_MAX),
        "Begin another file of the audit log at this size.",
    ),
]
AuditRetain = Annotated[
    int,
    amount(
        "Audit",
        "BYTES",
        Bound(low=AUDIT_FILE_SIZE_MIN, high=AUDIT_RETAIN_MAX, zero=True),
        "Keep this much of the audit log, and a file more, at most: the oldest files go first. 0: no bound.",
    ),
]
