"""learner: numbers. Batches in, weights and gradients, reports out. No clock, no SQL, no broker."""
