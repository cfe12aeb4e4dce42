"""Rollouts: drawn by the policy, or read from pools.

fitting                          do rows fit the model's context and vocabulary
rollout, tokens, draws           the one record; texts and token ids; a uniform per key and position
policy, sampling, slots, decoder the policy draws: plainly, or on a GPU in slots with a CUDA graph a token
pools, places, sources           pools on disk; where one may lie; what a step trains on
graded                           completions of anybody's as a pool (grade.py --pool)
"""
