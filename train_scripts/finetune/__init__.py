"""LoRA on prompts and answers."""
