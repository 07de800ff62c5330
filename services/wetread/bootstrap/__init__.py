"""The composition root: the only place that knows adapters. Settings -> ports -> services -> processes."""
