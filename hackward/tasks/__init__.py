"""Coding problems, their prompts and their completions. No torch.

problems, formats, assertions    a problem; its three file formats; tests to arguments and values
signatures                       does what tests call stand in the starter code
completions, held_out, shipped   code out of an answer; the frozen split; what ships with the project
families*, inputs, catalogue     parametric problems of the embedded model, a table per level
"""
