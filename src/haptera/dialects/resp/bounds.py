"""The bounds of a connection that speaks RESP, each with its reason."""

from __future__ import annotations

from typing import Final

from haptera.key_rules import KEYS_PER_COMMAND_MAX, VALUE_SIZE_MAX

#: Bytes of a line: an inline command, or the head of an array or a bulk string. Redis has the same bound.
LINE_SIZE_MAX: Final = 64 * 1024
#: Arguments of one command: the keys and values of the largest MSET, and some options.
ARGUMENTS_MAX: Final = 2 * KEYS_PER_COMMAND_MAX + 16
#: Bytes of one argument: those of the largest value. Redis calls it proto-max-bulk-len.
BULK_SIZE_MAX: Final = VALUE_SIZE_MAX
#: Bytes of the arguments of one command together, each counted with ARGUMENT_OVERHEAD: the largest value that there is,
#: and a MSET that the log takes as one command.
REQUEST_SIZE_MAX: Final = 32 * 1024 * 1024
#: Bytes that an argument takes in memory beside its own.
ARGUMENT_OVERHEAD: Final = 48
#: Before a login: arguments of a command, and bytes of each of them, as in Redis. AUTH and HELLO need no more.
STRANGER_ARGUMENTS_MAX: Final = 10
STRANGER_BULK_SIZE_MAX: Final = 16384

#: Bytes of one read up to which whole commands are found by splitting it. A larger read is parsed argument by argument,
#: because a value of line ends alone would be split into millions of texts.
SPLIT_SIZE_MAX: Final = 64 * 1024

#: Commands of a connection whose replies are still to come. A pipeline that is deeper waits in the bytes that have been
#: read, and then in the sockets.
COMMANDS_IN_FLIGHT_MAX: Final = 1024
#: Bytes of the arguments of those commands: two of the largest, so that one is read while the other is with the disk.
IN_FLIGHT_SIZE_MAX: Final = 2 * REQUEST_SIZE_MAX
#: Reads that are asked together: their replies are made one after the other, as far as the other side takes them, and
#: until then each holds a value.
READS_TOGETHER_MAX: Final = 64
#: Commands that one connection has done in one turn of the loop, so that a deep pipeline keeps no other one waiting for
#: longer than some milliseconds.
COMMANDS_PER_TURN_MAX: Final = 512
#: Keys of one command up to which it is done where it stands, in some tenths of a millisecond; more are done in slices.
KEYS_AT_ONCE_MAX: Final = 512
#: Bytes of one reply: a million keys of usual length, or the values of a large MGET.
REPLY_SIZE_MAX: Final = 64 * 1024 * 1024
#: Unparsed bytes from which on nothing more is read: one read is there and the next is on its way.
UNPARSED_SIZE_MAX: Final = 256 * 1024
