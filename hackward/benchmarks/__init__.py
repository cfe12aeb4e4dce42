"""What things cost, beside a baseline in the same run.

sections, flags                  what bench.py measures
sampling, step, probe, setup     the loop's phases, each against its baseline
batching, continuous             slots against transformers' continuous batching
peers, trl_step, exact, alone    steps against TRL's: same prompts, lengths and rewards, a process each
parts, imposed                   clock, floors and tables; a policy of imposed lengths and texts
grading, plain_grading           the grader against plain subprocesses
against_checkout, checkout_grader  the same of another checkout, by turns
"""
