"""The tests of ``common``: one file per module, and files for what runs across: hostile lines, recordings."""
