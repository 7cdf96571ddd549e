"""LoRA fine-tuning on prompts and answers."""
