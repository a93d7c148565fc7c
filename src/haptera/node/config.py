"""The configuration of a node: its options, each a field of `NodeConfig`."""

from __future__ import annotations

from typing import Annotated, Final, Literal, get_args

import msgspec

from haptera import defaults
from haptera.connection import (
    BUDGET,
    CONNECTION_BUDGET,
    FRAME_TIMEOUT_S,
    HANDSHAKE_TIMEOUT_S,
    IDLE_FRAMES_BURST,
    IDLE_FRAMES_PER_S,
    MESSAGE_SHARE_MAX,
    MESSAGE_TIMEOUT_S,
    PROCESS_BUDGET,
    Bound,
    seconds,
)
from haptera.node.audit.options import (
    AUDIT_FILE_SIZE_DEFAULT,
    AUDIT_RETAIN_DEFAULT,
    AuditData,
    AuditFileSize,
    AuditKeys,
    AuditRetain,
    AuditSlow,
)
from haptera.node.caller_limits import ConnectionsPerAddress, ConnectionsPerUser, RateBurst, SessionRate, UserRate
from haptera.node.history_options import MEMORY_MAX_MAX, HistoryBytes, HistoryEvents
from haptera.node.logging import FORMATS, LEVELS
from haptera.node.option_kinds import (
    ConflictingOptions,
    Option,
    address_list,
    amount,
    choice,
    command_text,
    group_text,
    mode_text,
    of_limits,
    of_listener,
    path_text,
)
from haptera.node.proof_options import (
    ADMIN_USER_DEFAULT,
    AdminPasswordFile,
    AdminUser,
    ExternalUsersFile,
    InsecureListen,
    NoAuth,
    SigningKeyFile,
    SigningUser,
)
from haptera.state import EventBounds
from haptera.wire import LIMITS

SEGMENT_SIZE_MIN = 64 * 1024
SEGMENT_SIZE_MAX = 1024 * 1024 * 1024
SEGMENT_SIZE_DEFAULT = 64 * 1024 * 1024

#: 4,000 small entries. A smaller number lacks its unit, as `--memory-max 10` does, and refuses nearly every change.
MEMORY_MAX_MIN = 1 << 20
#: Four full segments: a start replays as much in some seconds, and a snapshot of a million keys is a fraction of it.
SNAPSHOT_AFTER_DEFAULT = 256 * 1024 * 1024
#: Segments that the retained bytes must have room for, so that one that is appended to is a small part of them.
SEGMENTS_RETAINED_MIN = 4
RETAIN_BYTES_DEFAULT = 4 * 1024 * 1024 * 1024
#: More than a disk has, so that a missing zero is found.
RETAIN_BYTES_MAX = 2**50
RETAIN_FOR_DEFAULT_S = 7 * 86_400.0
#: Ten years.
RETAIN_FOR_MAX_S = 3652 * 86_400.0

#: The values of the option, and for each the listener's ``compression``.
COMPRESSIONS: dict[str, bool | None] = {"auto": None, "zstd": True, "none": False}

Durability = Literal["sync", "os"]


class NodeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration of one node. Every field is an option of `haptera serve`, written here and nowhere else.

    From the fields come the flags of the command, the variables of the environment, the keys of the configuration file,
    docs/configuration.md and the keywords of the listeners. Times are in seconds, sizes in bytes. Raises
    ConfigurationError for values that do not go together.
    """

    data_dir: Annotated[str, Option(path_text, "Data", "DIR", "Directory of the data; made if it does not exist.")] = (
        f"./{defaults.DATA_DIRECTORY}"
    )
    durability: Annotated[
        Durability,
        choice(
            "Data",
            get_args(Durability),
            "sync: a write is on the disk before it is answered. os: it is with the operating system.",
        ),
    ] = "sync"
    log_writer: Annotated[
        Literal["auto", "thread"],
        choice(
            "Data",
            ("auto", "thread"),
            "auto: Linux writes small records of the log beside the node, by io_uring, where it may. thread: a thread "
            "of the node writes all of them.",
        ),
    ] = "auto"
    segment_size: Annotated[
        int,
        amount(
            "Data",
            "BYTES",
            Bound(low=SEGMENT_SIZE_MIN, high=SEGMENT_SIZE_MAX),
            "Size of one file of the log, allocated as a whole.",
        ),
    ] = SEGMENT_SIZE_DEFAULT
    memory_max: Annotated[
        int,
        amount(
            "Data",
            "BYTES",
            Bound(low=MEMORY_MAX_MIN, high=MEMORY_MAX_MAX, zero=True),
            "Memory that the keys and values may take. A change that would make it more is refused (5007); deletes go "
            "on. 0: no bound.",
        ),
    ] = 0
    history_events: HistoryEvents = EventBounds().events
    history_bytes: HistoryBytes = EventBounds().size
    snapshot_after: Annotated[
        int,
        amount(
            "Data",
            "BYTES",
            Bound(low=SEGMENT_SIZE_MIN, high=RETAIN_BYTES_MAX),
            "Make a snapshot when the log has grown by this much since the last one; a quarter of retain_bytes where "
            "that is less.",
        ),
    ] = SNAPSHOT_AFTER_DEFAULT
    retain_bytes: Annotated[
        int,
        amount(
            "Data",
            "BYTES",
            Bound(low=SEGMENT_SIZE_MIN * SEGMENTS_RETAINED_MIN, high=RETAIN_BYTES_MAX),
            "Keep this much of snapshots and log at most: the oldest go first. The newest snapshot and the log behind "
            f"it always stay. At least {SEGMENTS_RETAINED_MIN} times segment_size.",
        ),
    ] = RETAIN_BYTES_DEFAULT
    retain_for: Annotated[
        float,
        amount(
            "Data",
            "SECONDS",
            Bound(low=1, high=RETAIN_FOR_MAX_S, whole=False),
            "Keep snapshots and log for this long at most.",
        ),
    ] = RETAIN_FOR_DEFAULT_S
    archive_dir: Annotated[
        str | None,
        Option(
            path_text,
            "Data",
            "DIR",
            "Directory to which each file of the log is copied once it is full. Name one within the disk that is "
            "mounted for it: its parents are not made.",
        ),
    ] = None
    #: Empty for an embedded node.
    listen: Annotated[
        tuple[str, ...],
        Option(
            address_list,
            "Listeners",
            "URL",
            "Address to listen on: haptera://host:port, haptera+unix:///path, or for TLS "
            "hapteras://host:port?cert=FILE&key=FILE (docs/security.md); resp, resps and resp+unix for clients of "
            "Redis (docs/redis.md). Several may be given.",
            several=True,
        ),
    ] = (defaults.URL,)
    socket_mode: Annotated[
        str,
        Option(
            mode_text,
            "Listeners",
            "OCTAL",
            "File mode of the Unix sockets to listen on: 660 lets a group connect. The local socket in the data "
            "directory keeps mode 600.",
        ),
    ] = "600"
    socket_group: Annotated[
        str | None,
        Option(
            group_text,
            "Listeners",
            "GROUP",
            "Name or number of the group of these sockets; by default the group of the process.",
        ),
    ] = None
    drain_timeout: Annotated[
        float, amount("Listeners", "SECONDS", seconds(0.0), "Time that a stopping node gives the calls under way.")
    ] = 30.0
    max_connections: Annotated[
        int,
        of_listener(
            "Listeners",
            "COUNT",
            "max_connections",
            "The most connections of one listener; fewer where the limit on open files leaves no room for them. One "
            "more is refused (1013). The local socket in the data directory takes at most 1000.",
        ),
    ] = 10_000
    max_connections_per_address: ConnectionsPerAddress = 0
    max_connections_per_user: ConnectionsPerUser = 0
    max_half_open: Annotated[
        int,
        of_listener(
            "Listeners",
            "COUNT",
            "max_half_open",
            "The most connections with an unfinished handshake, up to half of max_connections. One more drops the "
            "oldest that has sent nothing, or the oldest of the others where more of these are known (1013).",
        ),
    ] = 4096
    no_auth: NoAuth = False
    insecure_listen: InsecureListen = False
    admin_user: AdminUser = ADMIN_USER_DEFAULT
    admin_password_file: AdminPasswordFile = None
    external_users_file: ExternalUsersFile = None
    signing_user: SigningUser = None
    signing_key_file: SigningKeyFile = None
    master_key_file: Annotated[
        str | None,
        Option(
            path_text,
            "Security",
            "FILE",
            "Encrypt the keys of the data under the master key in this file: 32 bytes, or 64 hex digits. The variable "
            "HAPTERA_MASTER_KEY can hold the digits instead. If none of the three is given, the node makes a master "
            "key and keeps it beside the data.",
        ),
    ] = None
    master_key_command: Annotated[
        str | None,
        Option(
            command_text,
            "Security",
            "COMMAND",
            "The same with the key that this command writes to its standard output. It is run without a shell.",
        ),
    ] = None
    session_rate: SessionRate = 0.0
    user_rate: UserRate = 0.0
    rate_burst: RateBurst = 2.0
    audit_data: AuditData = "off"
    audit_keys: AuditKeys = "plain"
    audit_slow: AuditSlow = 1.0
    audit_file_size: AuditFileSize = AUDIT_FILE_SIZE_DEFAULT
    audit_retain: AuditRetain = AUDIT_RETAIN_DEFAULT
    compression: Annotated[
        Literal["auto", "zstd", "none"],
        choice(
            "Connections",
            tuple(COMPRESSIONS),
            "zstd: compress payloads for peers that ask for it. auto: the same where zstandard is installed. none: "
            "never.",
            keyword="compression",
            give=COMPRESSIONS.__getitem__,
        ),
    ] = "auto"
    handshake_timeout: Annotated[
        float,
        of_listener("Connections", "SECONDS", "handshake_timeout_s", "Time for a handshake (1012)."),
    ] = HANDSHAKE_TIMEOUT_S
    ping_interval: Annotated[
        float,
        of_listener(
            "Connections",
            "SECONDS",
            "ping_interval_ms",
            "Send a PING to a peer that has been silent for this long, and end the connection after as long again "
            "without a sign of life (1015). 0: never.",
            bound=seconds(zero=True),
            give=lambda interval: round(interval * 1000),
        ),
    ] = 30.0
    idle_timeout: Annotated[
        float,
        of_listener(
            "Connections",
            "SECONDS",
            "idle_timeout_s",
            "End a connection that has had no call for this long. 0: never.",
            bound=seconds(zero=True),
            give=lambda timeout: timeout or None,
        ),
    ] = 0.0
    write_timeout: Annotated[
        float,
        of_listener(
            "Connections",
            "SECONDS",
            "write_timeout_s",
            "Disconnect a peer that takes less than 64 KiB in this time while more waits for it (3009).",
        ),
    ] = 30.0
    frame_timeout: Annotated[
        float,
        of_listener(
            "Connections",
            "SECONDS",
            "frame_timeout_s",
            "Time for a frame to arrive once it has begun, plus a second for each 64 KiB of it (1015).",
        ),
    ] = FRAME_TIMEOUT_S
    message_timeout: Annotated[
        float,
        of_listener(
            "Connections",
            "SECONDS",
            "message_timeout_s",
            "Time for a message of several frames to arrive, plus a second for each 64 KiB of it (3005).",
        ),
    ] = MESSAGE_TIMEOUT_S
    max_frame: Annotated[int, of_limits("max_frame", "BYTES", "The largest frame (1004).")] = LIMITS[
        "max_frame"
    ].default
    max_message: Annotated[
        int, of_limits("max_message", "BYTES", "The largest message (3004); at most a quarter of connection_budget.")
    ] = LIMITS["max_message"].default
    max_streams: Annotated[
        int, of_limits("max_streams", "COUNT", "The most calls under way on one connection (3007).")
    ] = LIMITS["max_streams"].default
    stream_window: Annotated[
        int, of_limits("stream_window", "BYTES", "The most bytes of one call's items that wait to be read (1009).")
    ] = LIMITS["stream_window"].default
    connection_window: Annotated[
        int,
        of_limits(
            "connection_window", "BYTES", "The same for the items of all calls of one connection together (1009)."
        ),
    ] = LIMITS["connection_window"].default
    connection_budget: Annotated[
        int,
        of_listener(
            "Limits of a peer",
            "BYTES",
            "budget",
            "Memory that one connection may use for unfinished messages, items and unanswered requests (3007).",
        ),
    ] = CONNECTION_BUDGET
    process_budget: Annotated[
        int,
        amount(
            "Limits of a peer",
            "BYTES",
            BUDGET,
            "The same for all connections together, at least connection_budget (3007); a user has a quarter at most.",
        ),
    ] = PROCESS_BUDGET
    flood_burst: Annotated[
        int,
        of_listener(
            "Limits of a peer",
            "COUNT",
            "idle_frames_burst",
            "Frames without work, such as PINGs, that a peer may send at once; more are a flood (3008).",
        ),
    ] = IDLE_FRAMES_BURST
    flood_rate: Annotated[
        float,
        of_listener(
            "Limits of a peer",
            "PER_SECOND",
            "idle_frames_per_s",
            "Frames without work that a peer may send in each second after that.",
        ),
    ] = IDLE_FRAMES_PER_S
    log_level: Annotated[str, choice("Logs", LEVELS, "debug, info, warning or error.", "LEVEL")] = "info"
    log_format: Annotated[str, choice("Logs", FORMATS, "One event a line, as text or JSON.")] = "text"

    def __post_init__(self) -> None:
        if self.max_message * MESSAGE_SHARE_MAX > self.connection_budget:
            raise ConflictingOptions(self, "max_message", "a quarter of ", "connection_budget")
        if self.connection_budget > self.process_budget:
            raise ConflictingOptions(self, "connection_budget", "", "process_budget")
        if self.segment_size * SEGMENTS_RETAINED_MIN > self.retain_bytes:
            raise ConflictingOptions(self, "segment_size", "a quarter of ", "retain_bytes")


#: Every option by name, in the order of the help.
OPTIONS: Final[dict[str, Option]] = {
    field.name: next(mark for mark in field.type.__metadata__ if isinstance(mark, Option))
    for field in msgspec.structs.fields(NodeConfig)
}
