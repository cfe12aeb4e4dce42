"""The method: what is trained, what it is compared with, what is taken out. Each formula once.

adapters, svd, svd_cache         the Protocol of an adapter and the table of bases; the decompositions
low_rank                         a change of weights as a LoRA, and the files of one
targets, trials, per_rollout     which layers are trained; what a model must do; whose token is whose
losses, weights, gradients       log-probabilities and the loss; what each rollout weighs; one backward
pairs, recipe, extraction        contrastive pairs; how a v_hack is made; making it
v_hack, quality                  the direction, its file and its controls; held-out quality and its null
projection                       cosines and nulls, gates, the editor that every arm runs
oracle, own_rows                 what any direction could catch, what V knows of own rollouts (audit.py)
"""
