"""A real VM for the demonstration and the tests: QEMU, a guest image made of Debian packages, and a shell in the guest.

``packages`` fetches, ``image`` builds, ``machine`` runs one QEMU, ``monitor`` speaks QMP with it, ``guest`` runs commands
in the VM over a line that has nothing to do with the port under test.
"""
