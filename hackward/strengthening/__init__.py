"""More tests for a problem: inputs made, answered by its canonical solution, and written beside its own.

arguments                    a test's arguments as values, and as source text again
terms, constraints           what a statement says of its inputs, as far as it can be read
properties, grids            sorted, distinct, a tree, ...: does a value have it, and how it is mended
invariants                   which of these hold for all of a problem's own inputs
proposals, mutations         inputs by type, edge cases first, and by mutation of given ones
inputs                       proposed, mended, and checked against all that is known
answers                      what the canonical solution says to them, twice, in the sandbox
strengthening                tests for one problem
rows, files                  a row in its format; a file of them, over processes, resumable
"""
