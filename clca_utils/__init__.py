"""CLCA: cultural-learning-based culture adaptation of language models, as a study to rerun."""
