"""Files written from a result: JSON, VTP and the svZeroDSolver table."""
