"""The tests of ``common.handoff``: one file per module. ``corpus`` was written by hand, never by the code under test."""
