"""The protocol, and nothing but the protocol.

Modules here do no I/O, read no clock and start no thread: time and bytes are passed in, bytes and events are handed out.
Both agents are built on them; they know neither agent.

Way in: ``session`` (what a channel drives), then ``negotiation`` (the rules), ``catalogue`` (the table), ``messages``.
"""
