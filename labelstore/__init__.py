"""labelstore: facts. What was shown, what came back, and what was known when. SQL and event time; no tensor, no broker."""
