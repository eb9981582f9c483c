"""The control API: HTTP and JSON over a Unix socket that only its owner may open.

``listener`` makes the socket, ``application`` answers, ``problems`` are the errors (RFC 9457). Whoever can open the socket
may ask everything: the permissions of the file are the access control.
"""
