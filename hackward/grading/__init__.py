"""Model code is run, and judged, behind a fence. No torch, and nothing of the project in the child.

labels, rows                     what a grade says; rows of grade.py
grader, pending                  batches over worker processes, items under way
worker, clocks                   the grader's end of one worker; its watch over a run
zygote, child, framing           a warm interpreter that forks per run; the run; messages with a length
descriptors                      files that may be open at once
checks, claims                   does an answer equal the expected value; what a run's lines prove
sandbox, syscalls                what fences a run in: limits, readable paths, bubblewrap; system calls
list_libraries                   run as a script: the shared libraries that an interpreter loads
fences, view                     applied in the worker: seccomp, Landlock, rlimits; a file system of its own
protection, probes               what holds on this machine, and how that is found out
"""
