"""The model and the machine it is on.

models, hashes                   loading, from the hub, a directory or GGUF; a model's hash
teacher                          a LoRA merged into the model
memory, neighbours               what fits into the free memory; waiting for what other processes hold
cards, cores                     this machine's GPUs; its cores, and a process's threads
ranks                            one run on several processes: what is dealt out and put together
kernels, triton_kernels          small operations fused, each beside its formula
repeatable                       the same bits from the same work
"""
