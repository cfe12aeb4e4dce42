"""Many runs: seeds x arms x controls. No torch.

flags, plan, price               the sweep asked for, its runs in order, its hours and cost
jobs, local, runner              a run as a process; processes on this machine; the queue
rules                            when no more runs are worth their price
"""
