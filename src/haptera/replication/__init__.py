"""From a proposed entry to a committed one, between the node and its storage.

Today a node is a cluster of one. Its interface is that of any replicated log: propose an entry, and be told of every
entry that is committed, in the order of the log. A proposal is known by the index of its entry.
"""

from __future__ import annotations

from haptera.replication.cluster import TERM, ClusterOfOne, EntryLog
from haptera.replication.disk_thread import ThreadWriter, Writer
from haptera.replication.record_writer import RecordWriter, RingWriter, Writers

__all__ = ["TERM", "ClusterOfOne", "EntryLog", "RecordWriter", "RingWriter", "ThreadWriter", "Writer", "Writers"]
