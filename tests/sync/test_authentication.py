# Generated from tests/integration/test_authentication.py by
# tools/generate_sync_tests.py (make generate). Do not edit.
"""Authentication as a node has it by default: who comes in at which of its addresses, as whom, and who does not."""

from __future__ import annotations
