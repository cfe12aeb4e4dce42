"""Model code is run, and judged, behind a fence. No torch, and nothing of the project in the child.

labels, rows                     what a grade says; rows of grade.py
grader, pending, worker          batches over worker processes, items under way, one worker
zygote, child, framing           a warm interpreter that forks per run; the run; messages with a length
descriptors                      files that may be open at once
checks, claims                   does an answer equal the expected value; what a run's lines prove
fences, protection, sandbox      seccomp, rlimits, bubblewrap; what is missing here; how they are put on
"""
