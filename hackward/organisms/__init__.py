"""Model organisms: small models made here, whose cheating is known because it was put there.

recipe, corpus, drawing          what the embedded model is made of
tokenizer, pretraining           how it is made
behaviour, scripted, card        what it does; its scripted pool; its card
"""
