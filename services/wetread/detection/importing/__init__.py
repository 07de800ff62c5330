"""The door for other people's models: quarantine, inspection, isolated conversion, equivalence, shadow."""
