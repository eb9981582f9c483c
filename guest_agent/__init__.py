"""The agent inside a VM: it reports what the VM knows of itself and follows the host's API version.

It runs as root in every VM, so it is small and calm: one selector loop, one worker thread for facts that can hang, no
command of the machine is run. What comes from the host, from ``/proc`` or from a file is not believed unchecked.

Way in: ``main`` (arguments, exit status), then ``agent`` (the loop), ``link`` (port and session), ``collectors`` (facts).
"""
