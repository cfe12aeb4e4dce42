"""Claims as tests. What the libraries read when they are imported is set here, before any of them is."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test never reaches for the network
