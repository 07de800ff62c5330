"""Decoders of compressed pixel data behind ``core.ports.pixels.FrameDecoder``."""
