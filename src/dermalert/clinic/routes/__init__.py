"""What the clinic answers: one file a kind of caller. Each route says who may call it; `access` sees to it."""
