"""The science of echocardiographic ejection fraction: the fan on the screen, discs, beats, and the answer.

NumPy, SciPy and, for pictures, Pillow only; nothing here knows DICOM, files or a network's engine.
"""
