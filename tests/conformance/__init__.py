"""Architecture x operation: what PEFT's LoRA can do, a style adapter can do, or says here why not."""
