"""More tests for a problem: inputs made, answered by its canonical solution, and written beside its own.

arguments                    a test's arguments as values, and as source text again
terms, constraints           what a statement says of its inputs, as far as it can be read
properties, invariants       what else holds for all of a problem's own inputs, and how it is mended
proposals, mutations         inputs by type, edge cases first, and by mutation of given ones
answers                      what the canonical solution says to them, twice, in the sandbox
strengthening, command       tests for one problem; for a file of them, over processes, resumable
"""
