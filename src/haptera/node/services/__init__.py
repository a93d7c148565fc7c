"""The services that a node hosts on its connections: kv, server and its part of session."""
