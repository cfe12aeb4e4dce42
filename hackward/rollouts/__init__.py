"""Rollouts: drawn by the policy, or read from pools.

fitting                          do rows fit the model's context and vocabulary
rollout, tokens, draws           the one record; texts and token ids; a uniform per key and position
policy, sampling, slots, decoder the policy draws: plainly, or on a GPU in slots with a CUDA graph a token
pools, sources                   pools on disk; what a step trains on
"""
