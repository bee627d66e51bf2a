"""stream: time. Reads the log, asks the label store what is due, hands it to the learner, commits."""
