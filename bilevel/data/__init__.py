"""From any corpus to a checked, Kaldi-style data directory. No torch at import time."""
