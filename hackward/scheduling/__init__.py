"""Many runs: seeds x arms x controls. No torch.

flags, plan, price, fits         the sweep asked for, its runs in order, its hours and cost, a GPU's memory
experiment                       arms with flags of their own, from a file
jobs, commands                   how far a run has come; the command that begins it or goes on with it
engines                          what carries runs: the Protocol, and the table of --on
local, cluster, printed          the engines: processes on this machine, tasks of Ray, lines for a scheduler
queue, board                     what goes at once, started and watched; the live table
runner, locks                    stage after stage, one sweep at a time in a directory
rules                            when no more runs are worth their price
"""
