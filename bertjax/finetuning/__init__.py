"""Fine-tuning of a pre-trained encoder on downstream tasks."""
