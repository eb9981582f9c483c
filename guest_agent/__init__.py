"""The agent inside a VM: it reports what the VM knows of itself and follows the host's API version.

It runs as root in every VM, so it is small and calm: one selector loop that never blocks, and for all that may hang, or
needs a large module, workers: child processes that are gone afterwards. What comes from the host, from ``/proc`` or from a
file is not believed unchecked.

Way in: ``main`` (arguments, exit status), then ``agent`` (the loop), ``link`` (port and session), ``facts`` and
``collectors``, ``executor`` and ``commands``, ``worker``.
"""
