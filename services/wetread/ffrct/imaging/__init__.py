"""From a coronary CT angiogram to a lumen tree: classical image analysis, NumPy and SciPy only, no trained weights."""
