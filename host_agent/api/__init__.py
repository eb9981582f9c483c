"""The control API: HTTP and JSON over a Unix socket.

``listener`` makes the socket, ``server`` answers on it what ``application`` answers; ``facade`` is what all that needs of
the daemon. ``access`` knows who may ask, ``inputs`` checks what they send, ``waiting`` waits for what takes long,
``problems`` are the errors (RFC 9457). What can be asked: ``guests``, ``commands``, ``handoffs``, ``events``; ``openapi``
describes it. Nothing here knows discovery, channels or files.
"""
