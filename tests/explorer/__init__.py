"""The explorer: every order of what can happen to a host, a guest and the channel between them, on the real sessions.

``reference`` models the deployed peers from what is documented of their wire; ``machines`` turns a peer into a pure,
memoised step function; ``world`` says what can happen; ``explore`` walks through it and checks safety, convergence and
quiet. A violation is a ``Counterexample`` that prints as a trace.

Of the hand-off ``daemons`` does what ``machines`` does, and ``moving`` says what can happen and what must hold.
"""
