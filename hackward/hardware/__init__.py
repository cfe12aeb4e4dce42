"""The model and the machine it is on.

models, hashes                   loading, from the hub, a directory or GGUF; a model's hash
teacher                          a LoRA merged into the model
memory                           what fits into the free memory, and what is done where it did not
kernels, triton_kernels          small operations fused, each beside its formula
"""
