"""Runs in EleutherAI's lm-evaluation-harness (Gao et al. 2024, doi 10.5281/zenodo.12608602): `python
experiments/evaluate.py --suite=lm_eval`. model.py, answers.py, tasks.py and running.py import the harness, which brings
torch and transformers along; nothing else does."""
