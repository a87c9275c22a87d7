"""qa_core trains and measures one question-answering recipe.

It knows nothing of Ray, MLflow, Optuna or sweeps. Start reading at `qa_core/run.py`.
"""
