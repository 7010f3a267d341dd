"""The stages: convert, fit, score, report; each plans, runs and commits."""
