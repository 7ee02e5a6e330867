"""Exports: a trained model for a runtime of deployment, checked against the model in torch."""
