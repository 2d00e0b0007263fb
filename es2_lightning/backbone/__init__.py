"""Floor 1: the causal LM, its adapter, its frozen reference, and its hidden states by layer.

Layer numbers, everywhere in the project: layer l is the output of block l, 1 … L; 0 stands for the
input embeddings; negative numbers count from the end (-1 is L).
"""
