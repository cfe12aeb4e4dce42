"""What every room may use: faults, files, flags, records, statistics. Knows nothing of RL.

arms                 the one table of arms: basis, gate, place, control, baselines, flags
faults, screen       one line per fault and exit 2; bars, lines and final screens
lines, terminal      text and tables at a terminal's width; lines does without rich
markdown             tables and fences that names of others do not break
hub, space           does a name lead to a model; is there room on the disk
containers           what a file is that holds no text
files, tensors       written to a temporary name and renamed; safetensors with a fault per broken file
flags, records       command lines and rows of files, checked by tyro and pydantic
helptexts            what --help says of each flag, filled by the width of the terminal
syntax               of texts that others wrote, parsed in silence
lock, checksums      one writer of a directory; a byte of its files that changed is found
provenance, seeds    commit, versions, hashes; every draw's generator from a key
statistics           intervals, paired and unpaired, over seeds or problems or both; equivalence; Holm
breakout             time to hack
survival             times that may be censored: Kaplan-Meier, restricted mean, stratified log-rank
"""
